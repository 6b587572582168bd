#!/bin/sh
# Every way to score instances from bag labels, on the same bags: sh experiments/instance_claims/run.sh OUT SET [SEEDS]
# SET: colon (COLON=colon.csv of docs/formats.md), kather_RATIO, cifar_RATIO (CIFAR=OUT of weno_transport/cifar_features.py), or
# procedural (PROCEDURAL=manifest.csv of kd_mil.extract).
# METHODS="alone_best weno" runs those alone. A finished run is skipped, an interrupted one goes on.
set -e
out=$1 set=$2 seeds=${3:-0 1 2}
net="encoder.out_features=128 optimizer.lr=1e-3 trainer=cpu trainer.threads=1 callbacks.figures=null"
teacher="aggregator=gated_abmil aggregator.hidden=[128]"
student="student_head.hidden=[128]"
mining="hpm=threshold hpm.threshold=0.9 hpm.start_share=0.5 hpm.fallback=all"
run() { # METHOD key=value ...
  method=$1
  shift
  case " ${METHODS:-$method} " in *" $method "*) ;; *) return ;; esac
  # shellcheck disable=SC2086
  python -m kd_mil.run "$@" $data $net hydra.run.dir="$out/$set/$method/$name"
}
methods() {
  # shellcheck disable=SC2086
  {
    run alone_best experiment=mil $teacher select=best
    run alone_last experiment=mil $teacher select=last
    run max experiment=mil aggregator=max select=last
    run naive experiment=weno method.distillation=false $teacher $student $mining select=last
    run weno experiment=weno $teacher $student $mining select=last
    run weno_bag_of_one experiment=weno method.pseudo_labels=bag_of_one $teacher $student $mining select=last
    run sela_mil experiment=sela_mil $student select=last
    run ins experiment=ins $student select=last
    run dmkd_style experiment=dmkd_style $teacher $student select=last
    run weno_transport experiment=weno_transport $teacher $student
    run supervised experiment=supervised $student select=last
  }
}
for seed in $seeds; do
  case $set in
  colon)
    for fold in 0 1 2 3 4; do
      name=$fold.$seed data="data=feature_bags data.manifest=$COLON data.fold=$fold seed=$seed trainer.max_epochs=10"
      methods
    done
    ;;
  kather_*)
    name=$seed data="data=kather_mil data.positive_ratio=${set#kather_} data.seed=$seed seed=$seed trainer.max_epochs=15"
    methods
    ;;
  procedural)
    name=$seed data="data=feature_bags data.manifest=$PROCEDURAL data.classes=[negative,positive] seed=$seed trainer.max_epochs=10"
    methods
    ;;
  cifar_*)
    name=$seed data="data=feature_bags data.manifest=$CIFAR/${set#cifar_}/$seed.csv seed=$seed trainer.max_epochs=10"
    methods
    ;;
  esac
done
