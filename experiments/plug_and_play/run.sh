#!/bin/sh
# Each aggregator alone, as WENO's teacher and as the teacher of weno_transport: sh experiments/plug_and_play/run.sh OUT [SEEDS]
# A finished run is skipped, an interrupted one goes on.
set -e
out=$1 seeds=${2:-0 1 2}
mining="hpm=threshold hpm.threshold=0.9 hpm.start_share=0.5 hpm.fallback=all"
run() { # METHOD key=value ...
  method=$1
  shift
  # shellcheck disable=SC2086
  python -m kd_mil.run "$@" aggregator=$aggregator $network data=kather_mil data.positive_ratio=0.2 data.seed=$seed seed=$seed \
    encoder.out_features=128 trainer.max_epochs=15 trainer=cpu trainer.threads=1 callbacks.figures=null \
    hydra.run.dir="$out/$aggregator/$method/$seed"
}
for seed in $seeds; do
  for aggregator in max mean abmil gated_abmil loss_abmil dsmil clam_sb clam_mb acmil dtfd chi_mil transmil; do
    network="optimizer.lr=1e-3" student="student_head.hidden=[128]"
    case $aggregator in
    abmil | gated_abmil | clam_sb | clam_mb) network="$network aggregator.hidden=[128]" ;;
    transmil) network="optimizer.lr=2e-4 aggregator.width=128" student="$student method.student_lr=1e-3" ;; # its authors' rate
    esac
    # shellcheck disable=SC2086
    {
      run alone_best experiment=mil select=best
      run alone_last experiment=mil select=last
      [ $aggregator = mean ] || run weno experiment=weno $student $mining select=last # its attention says nothing
      run weno_transport experiment=weno_transport $student
    }
  done
done
