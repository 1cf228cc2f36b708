"""Who taught a federated language model what it says.

A *bundle* on disk holds the global model and each client's update (`bundle`); `training` builds one by real FedAvg
rounds, `importers` makes one from what others trained. A `FederatedModel` is a bundle loaded for serving. A `Batch`
(`decoding`) decodes with it, capturing on the way what attribution needs; `scoring` turns a finished generation into
signed scores and shares by client, under the preset `paper` or `credit`.

This package knows torch and transformers, and neither databases, HTTP nor money: what leaves it are plain frozen
records. One thread owns a model, its batch and its attribution.

    base/               the base model: where weights come from, what its folder claims, where its layers are
    bundle/             a consortium on disk: the global model and each client's update, every file hashed
    decoding/           token ids in, tokens and captured activations out
    evaluation/         experiments that check attribution on real consortia
    files/              files from outside: read in bounded time and memory, written without a loss
    importers/          updates that others trained, checked and taken into a bundle
    rounds/             rounds as a federation's own software ran them: recorded there, read here
    scoring/            a finished generation in, scores and shares by client out
    training/           federated averaging over question–answer files, from a recipe to a bundle
    attribute           who taught a response: a finished generation in, scores and shares by client out
    errors              the exceptions of this package, one small tree; each message says what would be right
    logprob_comparison  are these log-probabilities the bundle's: of responses that somebody else generated
    model               a bundle loaded for serving: the network, its tokenizer, and what each client changed
    progress            how long work tells how far it is
    records             what leaves this package: a step, a finished generation, an attributed response; all frozen
    teacher_forcing     a response that somebody else wrote, read by the model as if it had generated it
    tracing             who is behind flagged responses: clients ranked by responsibility, with a confidence
"""
