"""The signing path of the adapter, as numbered steps: `pipeline` lists them and has their order."""
