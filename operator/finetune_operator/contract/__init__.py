"""What the processes of the product tell each other: files, exit codes, messages and paths.

The operator writes a `TrainingConfig` into the pod's annotation, which the downward API shows as a file. The `prepare`
container turns ratings into a dataset and leaves a `DatasetReport`; the trainer posts `Progress`, publishes an adapter
with an `AdapterManifest` and ends with a `TrainingResult` or a `Failure` in its termination message. The server image
starts from an `AdapterList`. Only this package and `core` are installed in the trainer and the server image.
"""
