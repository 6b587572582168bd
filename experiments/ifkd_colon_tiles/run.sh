#!/bin/sh
# The runs of this record; a finished run is skipped, an interrupted one continues.
#   sh experiments/ifkd_colon_tiles/run.sh OUT
set -e
out=${1:-runs/ifkd_colon_tiles}
run() {
  name=$1
  shift
  python -m kd_mil.run "$@" data=colon_tiles trainer=cpu callbacks.overlays.every_n_epochs=20 seed=0 hydra.run.dir="$out/$name/0"
}
run gm_bce experiment=ifkd_synthetic method.teacher_epochs=8 trainer.max_epochs=24
run teacher_gm_bce experiment=ifkd_synthetic method.teacher_epochs=null trainer.max_epochs=24
run cam experiment=cam_baseline segmenter=lite0_mil preprocess=tissue trainer.max_epochs=24
run unet experiment=unet_supervised segmenter.name=tf_efficientnet_lite0 segmenter.pretrained=true method.augment=true trainer.max_epochs=8
