#!/bin/sh
# All runs of this record, a seed after the other; a finished run is skipped, an interrupted one continues.
#   sh experiments/ifkd_synthetic/run.sh OUT [SEEDS]
set -e
out=${1:-runs/ifkd_synthetic}
seeds=${2:-0 1 2}
tiles="data=synthetic_tumour_tiles trainer=cpu callbacks.overlays.every_n_epochs=20"
run() {
  name=$1
  shift
  # shellcheck disable=SC2086
  python -m kd_mil.run "$@" $tiles hydra.run.dir="$out/$name/$seed" seed="$seed"
}
rival="preprocess=tissue segmenter=lite0_mil trainer.max_epochs=34"
for seed in $seeds; do
  run gm_bce experiment=ifkd_synthetic method.stage_one=gm_bce
  run gm_bce_no_switch experiment=ifkd_synthetic method.stage_one=gm_bce method.switch.rule=never
  run dice experiment=ifkd_synthetic method.stage_one=dice
  run teacher_gm_bce experiment=ifkd_synthetic method.stage_one=gm_bce method.teacher_epochs=null
  run teacher_dice experiment=ifkd_synthetic method.stage_one=dice method.teacher_epochs=null
  run long_student experiment=ifkd_synthetic method.stage_one=gm_bce method.teacher_epochs=34 trainer.max_epochs=68 method.switch.rule=never
  run long_teacher experiment=ifkd_synthetic method.stage_one=gm_bce method.teacher_epochs=null trainer.max_epochs=68
  run long_student_pasted experiment=ifkd_synthetic method.stage_one=gm_bce method.teacher_epochs=34 trainer.max_epochs=68 method.switch.rule=never method.paste=0.7
  run long_teacher_pasted experiment=ifkd_synthetic method.stage_one=gm_bce method.teacher_epochs=null trainer.max_epochs=68 method.paste=0.7
  # shellcheck disable=SC2086
  for mode in layer output; do
    run $mode experiment=ifkd_synthetic method.switch.rule=never method.mode=$mode
  done
  run no_wce experiment=ifkd_synthetic method.switch.rule=never method.wce.weight=0
  run periodic experiment=ifkd_synthetic method.switch.rule=periodic
  for net in vgg:vgg_mil_small resnet:resnet_mil "sa:sa_mil segmenter.widths=[16,32,64]" swin:swin_mil; do
    # shellcheck disable=SC2086
    run "${net%%:*}_teacher" experiment=ifkd_synthetic segmenter=${net#*:} method.teacher_epochs=null
    # shellcheck disable=SC2086
    run "${net%%:*}_student" experiment=ifkd_synthetic segmenter=${net#*:}
  done
  run vgg_long_student experiment=ifkd_synthetic segmenter=vgg_mil_small method.teacher_epochs=34 trainer.max_epochs=68 method.switch.rule=never
  run vgg_long_teacher experiment=ifkd_synthetic segmenter=vgg_mil_small method.teacher_epochs=null trainer.max_epochs=68
  long="experiment=ifkd_synthetic method.teacher_epochs=34 trainer.max_epochs=68 method.switch.rule=never"
  switched="experiment=ifkd_synthetic method.teacher_epochs=34 method.paste=0.7"
  run all_pasted_teacher experiment=ifkd_synthetic method.teacher_epochs=null method.paste=1.0
  run pasted_exponent_8 experiment=ifkd_synthetic method.teacher_epochs=null method.paste=0.7 method.gm_exponent=8
  # shellcheck disable=SC2086
  for net in vgg:vgg_mil_small resnet:resnet_mil; do
    run "${net%%:*}_deep" $long segmenter=${net#*:} "segmenter.fusion_weights=[0.2,0.2,0.6]"
  done
  # shellcheck disable=SC2086
  run vgg_no_wce $long segmenter=vgg_mil_small method.wce.weight=0
  # shellcheck disable=SC2086
  run long_no_wce $long method.wce.weight=0
  # shellcheck disable=SC2086
  run long_student_output $long method.mode=output
  # shellcheck disable=SC2086
  run pasted_no_wce $long method.paste=0.7 method.wce.weight=0
  # shellcheck disable=SC2086
  run pasted_output $long method.paste=0.7 method.mode=output
  # shellcheck disable=SC2086
  run pasted_periodic $switched trainer.max_epochs=136 method.switch.rule=periodic method.switch.first=34 method.switch.period=34
  # shellcheck disable=SC2086
  run pasted_never $switched trainer.max_epochs=136 method.switch.rule=never
  # shellcheck disable=SC2086
  run vgg_deep_pasted $long segmenter=vgg_mil_small "segmenter.fusion_weights=[0.2,0.2,0.6]" method.paste=0.7
  # shellcheck disable=SC2086
  run pasted_switched $switched trainer.max_epochs=102 method.switch.rule=if_better method.switch.first=34 method.switch.period=34
  # shellcheck disable=SC2086
  run swin_long_student $long segmenter=swin_mil
  run sa_short experiment=ifkd_synthetic method.teacher_epochs=20 trainer.max_epochs=40 method.switch.rule=never segmenter=sa_mil "segmenter.widths=[16,32,64]"
  run longest_teacher_pasted experiment=ifkd_synthetic method.teacher_epochs=null trainer.max_epochs=136 method.paste=0.7
  # shellcheck disable=SC2086
  run dice_long_student $long method.stage_one=dice
  run lite0_supervised experiment=unet_supervised segmenter=lite0_mil method.augment=true trainer.max_epochs=34
  # shellcheck disable=SC2086
  run cam experiment=cam_baseline $rival
  run unet experiment=unet_supervised segmenter.name=tf_efficientnet_lite0 segmenter.pretrained=true method.augment=true trainer.max_epochs=34
  # shellcheck disable=SC2086
  run oeem experiment=oeem_style $rival method.teacher_epochs=10
  run oaa experiment=oaa_style segmenter=lite0_mil trainer.max_epochs=34 method.teacher_epochs=10 method.augment=true
done
