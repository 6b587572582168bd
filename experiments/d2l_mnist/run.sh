#!/bin/sh
# Fig. 2: the teacher with and without VAT. A finished run is skipped, an interrupted one resumes.
# usage: sh experiments/d2l_mnist/run.sh ROOT [key=value ...]
root=$1
shift
for seed in 0 1 2; do
  for bags in 50 100 200; do
    for vat in random off; do
      python -m kd_mil.run experiment=d2l_mnist method.student_epochs=0 method.teacher_epochs=$((2000 / bags)) \
        data.num_train_bags=$bags data.num_val_bags=100 method/vat=$vat seed=$seed data.seed=$seed \
        hydra.run.dir="$root/$vat/$bags/$seed" "$@"
    done
  done
done
