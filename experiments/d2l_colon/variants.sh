#!/bin/sh
# What changes without the entropy terms, with normalised colours, with instances averaged, and with the setting tried first.
# usage: sh experiments/d2l_colon/variants.sh ROOT
root=$1
common="experiment=d2l_colon optimizer.lr=5e-4 lr_decay=cosine select=last method.teacher_epochs=12"
no_entropy="method.kd.entropy_weight=0 method.vat.entropy_weight=0"
alone="method.student_epochs=0 method/vat=off"
for fold in 0 1 2 3; do
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=8 $no_entropy hydra.run.dir="$root/no_entropy/d2l/$fold"
done
for fold in 0 1 4; do
  python -m kd_mil.run $common data.fold=$fold data.stain_normalisation=reinhard $alone hydra.run.dir="$root/reinhard/mil/$fold"
done
for fold in 0 1; do
  python -m kd_mil.run $common data.fold=$fold data.stain_normalisation=reinhard method.student_epochs=8 $no_entropy \
    hydra.run.dir="$root/reinhard/d2l/$fold"
done
python -m kd_mil.run $common data.fold=0 method.student_epochs=8 method.kd.reduction=mean hydra.run.dir="$root/mean/d2l/0"
first="experiment=d2l_colon encoder.init=default optimizer.lr=3e-4 method.teacher_epochs=16 trainer.precision=bf16-mixed"
for fold in 0 1 2 3 4; do
  python -m kd_mil.run $first data.fold=$fold method.student_epochs=12 hydra.run.dir="$root/first/d2l/$fold"
  python -m kd_mil.run $first data.fold=$fold $alone hydra.run.dir="$root/first/mil/$fold"
done
