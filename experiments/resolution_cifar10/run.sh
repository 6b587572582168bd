#!/bin/bash
# All runs of the record; finished ones are skipped, an interrupted one resumes: bash experiments/resolution_cifar10/run.sh [RUNS]
set -e -o pipefail
runs=${1:-runs/resolution_cifar10}
common=(trainer=cpu data=cifar10_paired data.max_train_images=6400 data.max_test_images=4000
  data.val_fraction=0.0625 data.auxiliary_fraction=0.66666667
  method.network.stem=small method.network.width=16 method.network.groups=8
  'method.augment.flips=[horizontal]' method.augment.rotate=none method.augment.brightness=0.2 method.augment.contrast=0.2
  method.augment.saturation=0.2 method.augment.hue=0.02)
run() { python -m kd_mil.run experiment="$1" "${common[@]}" "${@:3}" "hydra.run.dir='$runs/$2'" 2>&1 | grep -E "results in|^error" ; }
for seed in ${SEEDS:-0 1 2}; do
  run resolution_teacher teacher/seed=$seed seed=$seed method.teacher_epochs=20
  for downsample in ${DOWNSAMPLES:-1.5 2 4 8}; do
    student=(seed=$seed data.student_downsample=$downsample)
    teacher=("method.teacher_ckpt='$runs/teacher/seed=$seed/checkpoints/best.ckpt'")
    run resolution_baseline baseline/downsample=$downsample,seed=$seed "${student[@]}" method.student_epochs=20
    run resolution_kd kd/downsample=$downsample,seed=$seed "${student[@]}" "${teacher[@]}" method.student_epochs=20
    # 10 epochs over twice as many images: as many updates as the others
    run resolution_kd_ad kd_ad/downsample=$downsample,seed=$seed "${student[@]}" "${teacher[@]}" method.student_epochs=10 \
      method.finetune_epochs=5
    # ADv1 within ADv2: half of the unlabelled images, as many updates
    run resolution_kd_ad kd_ad_half/downsample=$downsample,seed=$seed "${student[@]}" "${teacher[@]}" data.auxiliary_limit=2000 \
      method.student_epochs=20 method.finetune_epochs=5
  done
  student=(seed=$seed data.student_downsample=2 method.student_epochs=20)
  for resize in soft= maxpool=maxpool bicubic=bicubic; do  # Suppl. Fig. 1; both together are kd
    run resolution_kd kd_${resize%=*}/downsample=2,seed=$seed "${student[@]}" "${teacher[@]}" "method.loss.resize=[${resize#*=}]"
  done
done
