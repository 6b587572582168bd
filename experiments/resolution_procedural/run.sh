#!/bin/bash
# All runs of the record; finished ones are skipped, an interrupted one resumes:
#   bash experiments/resolution_procedural/run.sh [RUNS]
# SEEDS="0 1 2", SLIDES=160, EPOCHS=20 (labelled images), AD_EPOCHS=10 (pairs), WENO_EPOCHS=15 may be set; WENO_EPOCHS=0: no WENO on
# pixels.
set -e -o pipefail
here=$(dirname "$0"); runs=${1:-runs/resolution_procedural}
slides=$(python "$here/slides.py" "$runs/data" "${SLIDES:-160}")
say() { grep -E "results in|^error" ; }
common=(trainer=cpu data=paired_tiles "data.slides='$slides'" "data.classes=[negative,positive]" data.tile_size=192 data.mpp=1.0
  data.auxiliary_fraction=0.7 method.network.width=16 method.network.groups=16 data.images_per_step=32 data.resident_gib=3)
run() { python -m kd_mil.run experiment="$1" "${common[@]}" "${@:3}" "hydra.run.dir='$runs/$2'" 2>&1 | say ; }
for seed in ${SEEDS:-0 1 2}; do
  run resolution_teacher teacher/seed=$seed seed=$seed method.teacher_epochs=${EPOCHS:-20}
  given=("method.teacher_ckpt='$runs/teacher/seed=$seed/checkpoints/best.ckpt'")
  for downsample in 4 8; do
    at=(seed=$seed data.student_downsample=$downsample); name=downsample=$downsample,seed=$seed
    run resolution_baseline baseline/$name "${at[@]}" method.student_epochs=${EPOCHS:-20}
    run resolution_kd kd/$name "${at[@]}" "${given[@]}" method.student_epochs=${EPOCHS:-20}
    run resolution_kd_ad kd_ad/$name "${at[@]}" "${given[@]}" data.distil_on=both \
      method.student_epochs=${AD_EPOCHS:-10} method.finetune_epochs=3
  done
  at=(seed=$seed data.student_downsample=4 data.reading=level0)  # what all pixels give, and what they cost
  run resolution_kd_ad kd_ad_level0/downsample=4,seed=$seed "${at[@]}" "${given[@]}" data.distil_on=both \
    method.student_epochs=${AD_EPOCHS:-10} method.finetune_epochs=3
  # from slide labels alone: WENO on tiles of 64 µm at 1 µm per pixel, its students at 4 and 8 µm
  slide=(trainer=cpu "data.slides='$slides'" "data.classes=[negative,positive]" paths.cache_dir="$runs/cache" encoder=tiny_cnn
    tiling.magnification=null seed=$seed cost_of=4)
  # ... on features of EfficientNet-lite0
  features="$runs/features" weno="$runs/weno_lite0/seed=$seed" marks="$runs/marks/seed=$seed"
  python -m kd_mil.extract slides="'$slides'" out="'$features'" encoder=lite0 tiling.magnification=null tiling.mpp=1 tiling.tile_size=64 \
    > "$runs/extract.txt"
  python -m kd_mil.run experiment=weno_transport aggregator=gated_abmil 'aggregator.hidden=[128]' 'student_head.hidden=[128]' \
    encoder.out_features=128 optimizer.lr=1e-3 trainer=cpu trainer.max_epochs=10 seed=$seed data=feature_bags \
    "data.manifest='$features/manifest.csv'" "data.classes=[negative,positive]" "hydra.run.dir='$weno'" 2>&1 | say
  python -m kd_mil.predict ckpt="'$weno'" features="'$features/manifest.csv'" out="'$marks'" > "$weno/predict.txt"
  python "$here/features_cost.py" "$weno" "$slides"
  for size in 16 8; do
    python -m kd_mil.run experiment=resolution_weno "data.predictions='$marks'" tiling.mpp=$((64 / size)) tiling.tile_size=$size \
      "${slide[@]}" "hydra.run.dir='$runs/resolution_lite0/size=$size,seed=$seed'" 2>&1 | say
  done
  # ... on pixels
  [ "${WENO_EPOCHS:-15}" != 0 ] || continue
  weno="$runs/weno/seed=$seed"
  python -m kd_mil.run experiment=weno_dsmil data=slides data.cache=true tiling.mpp=1 tiling.tile_size=64 \
    trainer.max_epochs=${WENO_EPOCHS:-15} "${slide[@]}" "hydra.run.dir='$weno'" 2>&1 | say
  for size in 16 8; do
    python -m kd_mil.run experiment=resolution_weno "data.teacher='$weno'" tiling.mpp=$((64 / size)) tiling.tile_size=$size \
      "${slide[@]}" "hydra.run.dir='$runs/resolution_weno/size=$size,seed=$seed'" 2>&1 | say
  done
done
