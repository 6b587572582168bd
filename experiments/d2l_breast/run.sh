#!/bin/sh
# Five folds of whole micro-arrays: teacher, student, and the teacher without VAT. A finished run is skipped.
# usage: sh experiments/d2l_breast/run.sh ROOT [key=value ...]
root=$1
shift
common="experiment=d2l_breast encoder.convolutions=[[16,3,1],[32,3,1],[64,3,1],[128,3,1],[128,3,1]] optimizer.lr=5e-4 \
  lr_decay=cosine select=last method.teacher_epochs=10"
for fold in 0 1 2 3 4; do
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=5 hydra.run.dir="$root/d2l/$fold" "$@"
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=0 method/vat=off hydra.run.dir="$root/mil/$fold" "$@"
done
