#!/usr/bin/env bash
# The whole method on drawn data with the shipped VLM, offline: bash scripts/demo.sh [--quick]
# --quick: a fifth of the pictures, shorter trainings, no t-SNE maps or cluster sheets, in separate
# folders.
images=3000 data=data/demo out=outputs maps=yes short= shortest=
case "${1:-}" in
  "") ;;
  --quick) images=600 data=data/demo-quick out=outputs/quick maps=no short=epochs=1
    shortest="epochs=1 triplets=480" ;;
  *) echo "usage: bash scripts/demo.sh [--quick]" >&2; exit 2 ;;
esac
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
export HF_HUB_OFFLINE=1
python=.venv/bin/python

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
scenes=$data/genecis garments=$data/garments configs=configs/demo
# All in one process, since the import of torch takes seconds.
$python scripts/demo/run.py <<END
# 2/8  Running clustering
classification_clustering/clustering.py --config $configs/clevr4.yaml outputs=$out root=$data images=$images figures=$maps
classification_clustering/clustering.py --config $configs/cards.yaml outputs=$out root=$data images=$images figures=$maps
# 3/8  Running few_shot
classification_clustering/few_shot.py --config $configs/clevr4.yaml outputs=$out root=$data images=$images figures=$maps
classification_clustering/few_shot.py --config $configs/cards.yaml outputs=$out root=$data images=$images figures=$maps
# 4/8  Mining triplets from captions and training a Combiner
similarity_retrieval/mine_triplets.py --config $configs/mine.yaml outputs=$out graphs=$scenes/coco/annotations/relations_train2017.jsonl
similarity_retrieval/train_combiner.py --config $configs/combiner.yaml outputs=$out triplets=$out/triplets/demo/triplets.jsonl images=$scenes/coco
# 5/8  Running similarity_retrieval
similarity_retrieval/evaluate.py --config $configs/scenes.yaml outputs=$out root=$scenes trained=[$out/combiner/demo]
# 6/8  Training for fashion_retrieval: CRL's heads, then its backbone; a rival, CSN
fashion_retrieval/train_mlp.py --config $configs/garments_mlp.yaml outputs=$out root=$garments $short
fashion_retrieval/train_backbone.py --config $configs/garments_backbone.yaml outputs=$out root=$garments heads=$out/fashion_mlp/demo $shortest
fashion_retrieval/train_rival.py --config $configs/garments_csn.yaml outputs=$out root=$garments $shortest
# 7/8  Running fashion_retrieval
fashion_retrieval/evaluate.py --config $configs/garments.yaml outputs=$out root=$garments trained=[$out/fashion_mlp/demo,$out/fashion_backbone/demo,$out/fashion_rivals/demo]
# 8/8  Exploring a folder of pictures under four criteria
scripts/explore.py $data/clevr_4_10k_v1/images --vlm demo --texts color=clevr4_color --texts shape=clevr4_shape --texts count=clevr4_count --texts texture=clevr4_texture --precision fp32 --decode full --out $out/explore/clevr4
#
# I (universal) embeds the images; R = I Tᵀ (paper) is their representation, where T embeds the texts
# of a criterion. Both from the demo VLM on drawn pictures: an illustration of the method, not a
# result on the paper's data. To look at the pictures under a criterion, open
# $out/explore/clevr4/report.html in a browser; to see all results and figures, the page below.
#
scripts/reproduce_tables.py --outputs $out --page --runs $out/clustering/demo-clevr4 $out/clustering/demo-cards $out/few_shot/demo-clevr4 $out/few_shot/demo-cards $out/similarity_retrieval/demo $out/fashion_retrieval/demo
END
