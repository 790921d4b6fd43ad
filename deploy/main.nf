// nextflow run deploy/main.nf: slides/ to found/; a run that failed is continued by -resume.
process tile {
    input: val here
    output: val here
    script: "wsi-seg tile '$here/slides' --out '$here/store.zarr'"
}
process infer {
    input: tuple val(part), val(here)
    output: val here
    script: "wsi-seg infer '$here/store.zarr' --out '$here/pred.zarr' --shard $part/4"
}
process polygons {
    input: val here
    script: "wsi-seg export '$here/pred.zarr' --slides '$here/store.zarr' --geojson '$here/found'"
}
workflow {
    tiled = tile(launchDir.toString())
    predicted = infer(channel.of(1..4).combine(tiled))
    polygons(predicted.collect().map { all -> all[0] })
}
