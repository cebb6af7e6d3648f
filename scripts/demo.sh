#!/usr/bin/env bash
# The whole method on drawn data with the shipped VLM, offline: bash scripts/demo.sh [--quick]
# --quick: a fifth of the pictures, shorter trainings, no t-SNE maps or cluster sheets, in separate
# folders.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export HF_HUB_OFFLINE=1
python=.venv/bin/python
images=3000 data=data/demo out=outputs maps=yes short=() shortest=()
case "${1:-}" in
  "") ;;
  --quick) images=600 data=data/demo-quick out=outputs/quick maps=no short=(epochs=1)
    shortest=(epochs=1 triplets=480) ;;
  *) echo "usage: bash scripts/demo.sh [--quick]" >&2; exit 2 ;;
esac
run() { $python "$1" --config "configs/demo/$2.yaml" "outputs=$out" "${@:3}" >/dev/null; }

echo "1/8  Drawing the demo data"
$python scripts/demo/make_data.py --out $data --images $images
# A training refuses to continue with other data or another VLM, and new results would be added to
# the old ones. So if the data or the VLM changed, the old outputs are removed.
inputs=$(cat $data/*/.drawn.json crl/assets/demo_vlm/*.safetensors | cksum)
if [ "$(cat $out/demo-inputs 2>/dev/null)" != "$inputs" ]; then
  rm -rf $out/{triplets,combiner,fashion_mlp,fashion_backbone,fashion_rivals}/demo
  rm -rf $out/{clustering,few_shot}/demo-{clevr4,cards} $out/{similarity,fashion}_retrieval/demo
  mkdir -p $out
  echo "$inputs" >$out/demo-inputs
fi
for task in clustering few_shot; do
  echo "$([ $task = clustering ] && echo 2/8 || echo 3/8)  Running $task"
  for set in clevr4 cards; do
    run classification_clustering/$task.py $set root=$data images=$images figures=$maps
  done
done
echo "4/8  Mining triplets from captions and training a Combiner"
scenes=$data/genecis
run similarity_retrieval/mine_triplets.py mine \
  graphs=$scenes/coco/annotations/relations_train2017.jsonl
run similarity_retrieval/train_combiner.py combiner \
  triplets=$out/triplets/demo/triplets.jsonl images=$scenes/coco
echo "5/8  Running similarity_retrieval"
run similarity_retrieval/evaluate.py scenes \
  root=$scenes "trained=[$out/combiner/demo]"
echo "6/8  Training for fashion_retrieval: CRL's heads, then its backbone; a rival, CSN"
garments=$data/garments
run fashion_retrieval/train_mlp.py garments_mlp root=$garments "${short[@]}"
run fashion_retrieval/train_backbone.py garments_backbone root=$garments \
  heads=$out/fashion_mlp/demo "${shortest[@]}"
run fashion_retrieval/train_rival.py garments_csn root=$garments "${shortest[@]}"
echo "7/8  Running fashion_retrieval"
run fashion_retrieval/evaluate.py garments root=$garments \
  "trained=[$out/fashion_mlp/demo,$out/fashion_backbone/demo,$out/fashion_rivals/demo]"
echo "8/8  Exploring a folder of pictures under four criteria"
texts=()
for name in color shape count texture; do texts+=(--texts "$name=clevr4_$name"); done
$python scripts/explore.py $data/clevr_4_10k_v1/images --vlm demo "${texts[@]}" \
  --out $out/explore/clevr4 >/dev/null
cat <<END

I: universal embedding of the images. R = I Tᵀ: their conditional representation, where T embeds
the texts of a criterion. Both from the demo VLM on drawn pictures: an illustration of the method,
not a result on the paper's data. To look at the pictures under a criterion, open
$out/explore/clevr4/report.html in a browser; to see all results and figures, the page below.

END
$python scripts/reproduce_tables.py --outputs $out --page \
  --runs $out/{clustering,few_shot}/demo-{clevr4,cards} $out/{similarity,fashion}_retrieval/demo
