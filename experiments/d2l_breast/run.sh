#!/bin/sh
# Five folds of whole micro-arrays: teacher, student, and the teacher without VAT. A finished run is skipped.
# usage: sh experiments/d2l_breast/run.sh ROOT [key=value ...]
root=$1
shift
common="experiment=d2l_breast optimizer.lr=3e-4 method.teacher_epochs=12 trainer.precision=bf16-mixed"
for fold in 0 1 2 3 4; do
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=8 hydra.run.dir="$root/d2l/$fold" "$@"
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=0 method/vat=off hydra.run.dir="$root/mil/$fold" "$@"
done
