#!/usr/bin/env bash
# The main job on drawn data with the shipped VLM, offline: bash scripts/demo.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export HF_HUB_OFFLINE=1
python=.venv/bin/python
echo "1/3  Drawing the demo data"
$python scripts/make_demo_data.py --out data/demo --images 3000
for task in clustering few_shot; do
  echo "$([ $task = clustering ] && echo 2/3 || echo 3/3)  Running $task"
  for data in clevr4 cards; do
    $python classification_clustering/$task.py --config configs/demo/$data.yaml >/dev/null
  done
done
echo
$python scripts/reproduce_tables.py outputs/clustering/demo-clevr4 outputs/clustering/demo-cards
echo
$python scripts/reproduce_tables.py outputs/few_shot/demo-clevr4 outputs/few_shot/demo-cards
cat <<'END'

I: universal embedding of the images. R = I Tᵀ: their conditional representation, where T embeds
the texts of a criterion. Both from the demo VLM on drawn pictures: an illustration of the method,
not a result on the paper's data.
Figures (t-SNE maps, cluster sheets) and results.json: outputs/clustering/, outputs/few_shot/
END
