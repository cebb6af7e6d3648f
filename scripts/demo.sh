#!/usr/bin/env bash
# The whole method on drawn data with the shipped VLM, offline: bash scripts/demo.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export HF_HUB_OFFLINE=1
python=.venv/bin/python
echo "1/5  Drawing the demo data"
$python scripts/make_demo_data.py --out data/demo --images 3000
for task in clustering few_shot; do
  echo "$([ $task = clustering ] && echo 2/5 || echo 3/5)  Running $task"
  for data in clevr4 cards; do
    $python classification_clustering/$task.py --config configs/demo/$data.yaml >/dev/null
  done
done
# Both refuse to go on with work on other data or with another VLM: then they start anew.
inputs=$(cat data/demo/.scenes.json crl/assets/demo_vlm/*.safetensors | cksum)
if [ "$(cat outputs/demo-inputs 2>/dev/null)" != "$inputs" ]; then
  rm -rf outputs/triplets/demo outputs/combiner/demo
  echo "$inputs" >outputs/demo-inputs
fi
echo "4/5  Mining triplets from captions and training a Combiner"
$python similarity_retrieval/mine_triplets.py --config configs/demo/mine.yaml >/dev/null
$python similarity_retrieval/train_combiner.py --config configs/demo/combiner.yaml >/dev/null
echo "5/5  Running similarity_retrieval"
$python similarity_retrieval/evaluate.py --config configs/demo/scenes.yaml >/dev/null
echo
$python scripts/reproduce_tables.py outputs/clustering/demo-clevr4 outputs/clustering/demo-cards
echo
$python scripts/reproduce_tables.py outputs/few_shot/demo-clevr4 outputs/few_shot/demo-cards
echo
$python scripts/reproduce_tables.py outputs/similarity_retrieval/demo
cat <<'END'

I: universal embedding of the images. R = I Tᵀ: their conditional representation, where T embeds
the texts of a criterion. Both from the demo VLM on drawn pictures: an illustration of the method,
not a result on the paper's data.
Figures (t-SNE maps, cluster sheets, the best and worst templates) and results.json: outputs/
END
