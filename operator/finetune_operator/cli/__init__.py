"""`ftctl`, also `kubectl finetune`: all that a person does with the product, from a terminal, with a kubeconfig alone.

Resources are read and changed at the API server in the caller's own name. Only what no resource has (votes, exported
datasets, series) is asked of the api, with the caller's token. Modules that a command needs are imported when it runs,
so that help and completion are quick.
"""
