#!/bin/bash
# All runs of the record; finished ones are skipped, an interrupted one resumes: bash experiments/resolution_glas/run.sh [RUNS]
set -e -o pipefail
runs=${1:-runs/resolution_glas}
common=(trainer=cpu data=glas_grade data.teacher_downsample=4 data.images_per_step=4 method.network.width=16 method.network.groups=16)
run() { python -m kd_mil.run experiment="$1" "${common[@]}" "${@:3}" "hydra.run.dir='$runs/$2'" 2>&1 | grep -E "results in|^error" ; }
for fold in 0 1 2 3; do
  run resolution_teacher teacher/fold=$fold data.fold=$fold method.teacher_epochs=${EPOCHS:-40}
  for downsample in 8 16 32; do
    student=(data.fold=$fold data.student_downsample=$downsample method.student_epochs=${EPOCHS:-40})
    run resolution_baseline baseline/downsample=$downsample,fold=$fold "${student[@]}"
    run resolution_kd kd/downsample=$downsample,fold=$fold "${student[@]}" \
      "method.teacher_ckpt='$runs/teacher/fold=$fold/checkpoints/best.ckpt'"
  done
done
