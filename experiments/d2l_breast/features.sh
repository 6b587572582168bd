#!/bin/sh
# The same five folds on features of EfficientNet-lite0, Distill-to-Label and bag classifiers: sh experiments/d2l_breast/features.sh IMAGES OUT [SEEDS]
# A finished run is skipped, an interrupted one resumes.
set -e
here=$(dirname "$0") images=$1 out=$2 seeds=${3:-0}
python "$here/features.py" "$images" "$out/features"
d2l="experiment=d2l encoder.relu=true lr_decay=cosine method.teacher_epochs=20"
weno="aggregator=gated_abmil aggregator.hidden=[128] student_head.hidden=[128] trainer.max_epochs=20"
run() { # KIND key=value ...
  kind=$1
  shift
  python -m kd_mil.run "$@" data=feature_bags data.manifest="$out/features/$fold.csv" seed="$seed" select=last encoder.out_features=128 \
    optimizer.lr=1e-3 trainer=cpu trainer.threads=1 callbacks.figures=null hydra.run.dir="$out/$kind/$fold.$seed"
}
for seed in $seeds; do
  for fold in 0 1 2 3 4; do
    # shellcheck disable=SC2086
    {
      run mil $d2l method.student_epochs=0 method/vat=off
      run d2l $d2l method.student_epochs=10
      run zero $d2l method.student_epochs=10 method.kd.negative_bags=zero
      run gated experiment=mil aggregator=gated_abmil "aggregator.hidden=[128]" trainer.max_epochs=20
      run weno experiment=weno $weno hpm=threshold hpm.threshold=0.9 hpm.start_share=0.5 hpm.fallback=all
      run weno_transport experiment=weno_transport $weno
    }
  done
done
