#!/bin/sh
# Table I: five folds of teacher, student, and the teacher without VAT (MIL). A finished run is skipped, an interrupted one resumes.
# usage: sh experiments/d2l_colon/run.sh ROOT [key=value ...]
root=$1
shift
common="experiment=d2l_colon optimizer.lr=5e-4 lr_decay=cosine select=last method.teacher_epochs=12"
for fold in 0 1 2 3 4; do
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=8 hydra.run.dir="$root/d2l/$fold" "$@"
  python -m kd_mil.run $common data.fold=$fold method.student_epochs=0 method/vat=off hydra.run.dir="$root/mil/$fold" "$@"
done
