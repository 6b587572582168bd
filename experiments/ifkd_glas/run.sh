#!/bin/sh
# All runs of this record, one after the other; a finished run is skipped, an interrupted one continues.
#   KD_MIL_DATA=FOLDER sh experiments/ifkd_glas/run.sh OUT
set -e
out=${1:-runs/ifkd_glas}
common="data=glas data.image_size=96 preprocess=tissue instances_per_step=8 loading.eval_instances_per_step=33 optimizer.lr=1e-3
  trainer=cpu callbacks.overlays.every_n_epochs=4"
narrow='segmenter.widths=[16,32,64]'
run() {
  name=$1
  shift
  # shellcheck disable=SC2086
  python -m kd_mil.run $common "$@" hydra.run.dir="$out/$name"
}
for seed in 0 1; do
  ifkd="experiment=ifkd_vgg $narrow method.teacher_epochs=20 trainer.max_epochs=60 method.switch.first=20 method.switch.period=10 seed=$seed"
  run labels/no_switch/$seed $ifkd method.switch.rule=never
  run cam/$seed experiment=cam_baseline "$narrow" trainer.max_epochs=40 seed=$seed
  run unet/$seed experiment=unet_supervised segmenter.name=resnet10t method.augment=true preprocess=pixels trainer.max_epochs=40 seed=$seed
  run labels/switch/$seed $ifkd
done
for seed in 0 1; do
  ifkd="experiment=ifkd_vgg $narrow method.teacher_epochs=20 trainer.max_epochs=60 method.switch.first=20 method.switch.period=10 seed=$seed"
  run masks/no_switch/$seed $ifkd method.switch.rule=never monitor=val/student/pixel_f1
  run masks/switch/$seed $ifkd monitor=val/student/pixel_f1
done
