#!/bin/sh
# Table I on features of EfficientNet-lite0: MIL, VAT teacher, and four students of the same teacher; five folds, three seeds.
# MANIFEST is colon.csv of docs/formats.md. A finished run is skipped, an interrupted one resumes.
# usage: sh experiments/d2l_colon/features.sh MANIFEST ROOT [key=value ...]
manifest=$1 root=$2
shift 2
common="experiment=d2l data=feature_bags data.manifest=$manifest encoder.out_features=128 encoder.relu=true optimizer.lr=1e-3 \
  lr_decay=cosine select=last method.teacher_epochs=6 trainer=cpu trainer.threads=1"
run() { # KIND key=value ...
  kind=$1
  shift
  python -m kd_mil.run $common seed=$seed data.fold=$fold "$@" hydra.run.dir="$root/$kind/$fold.$seed"
}
for seed in 0 1 2; do
  for fold in 0 1 2 3 4; do
    run mil method.student_epochs=0 method/vat=off "$@"
    run written method.student_epochs=6 "$@"
    run zero method.student_epochs=6 method.kd.negative_bags=zero "$@"
    run zero_from_teacher method.student_epochs=6 method.kd.negative_bags=zero method.student_init=teacher "$@"
    run mean method.student_epochs=6 method.kd.reduction=mean "$@"
  done
done
for fold in 0 1 2 3 4; do # on the labels of all instances
  python -m kd_mil.run experiment=supervised data=feature_bags data.manifest="$manifest" encoder.out_features=128 encoder.relu=true optimizer.lr=1e-3 \
    lr_decay=cosine select=last trainer.max_epochs=12 trainer=cpu trainer.threads=1 seed=0 data.fold=$fold hydra.run.dir="$root/supervised/$fold"
done
