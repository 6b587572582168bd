#!/bin/sh
# All runs of this record, one after the other; a finished run is skipped, an interrupted one continues.
#   KD_MIL_DATA=FOLDER sh experiments/ifkd_glas/run.sh OUT
set -e
out=${1:-runs/ifkd_glas}
common="data=glas data.image_size=96 preprocess=tissue instances_per_step=8 loading.eval_instances_per_step=33 optimizer.lr=1e-3
  trainer=cpu callbacks.overlays.every_n_epochs=20"
narrow='segmenter.widths=[16,32,64]'
run() {
  name=$1
  shift
  # shellcheck disable=SC2086
  python -m kd_mil.run $common "$@" hydra.run.dir="$out/$name"
}
for seed in 0 1; do
  ifkd="experiment=ifkd_vgg $narrow method.teacher_epochs=60 trainer.max_epochs=140 method.switch.first=20 method.switch.period=20 seed=$seed"
  run no_switch/$seed $ifkd method.switch.rule=never
  run switch/$seed $ifkd
  run cam/$seed experiment=cam_baseline "$narrow" trainer.max_epochs=60 seed=$seed
  run unet/$seed experiment=unet_supervised segmenter.name=resnet10t method.augment=true preprocess=pixels trainer.max_epochs=60 seed=$seed
done
