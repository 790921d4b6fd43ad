// nextflow run deploy/main.nf: slides/ to found/; a run that failed is continued by -resume.
process tile { input: val here; output: val here; script: "wsi-seg tile $here/slides --out $here/store.zarr" }
process infer { input: tuple val(here), val(n); output: val here; script: "wsi-seg infer $here/store.zarr --out $here/pred.zarr --shard $n/4" }
process polygons { input: val here; script: "wsi-seg export $here/pred.zarr --slides $here/store.zarr --geojson $here/found" }
workflow { polygons(infer(tile(launchDir).combine(channel.of(1..4))).collect().map { all -> all[0] }) }
