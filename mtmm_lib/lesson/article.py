"""What the article says that the book follows: its statements by label, its sections;
and the arrows of the book's one picture."""

STATEMENTS = {
    "A1": "better generalisation, less overfitting",
    "A2": "better use of data",
    "A3": "less compute through sharing",
    "A4": "knowledge transfers between domains and to new tasks",
    "A5": "more robust, through complete and redundant information",
    "A6": "flexible and extensible in tasks and modalities",
    "C1": "unrelated tasks transfer negatively",
    "C2": "modalities are heterogeneous in form and statistics",
    "C3": "models are complex to design and tune",
    "C4": "training is unstable with several objectives",
    "C5": "more compute and memory than single models",
    "C6": "data is imbalanced between tasks or modalities",
    "C7": "decisions are hard to interpret",
    "F1": "hard parameter sharing",
    "F2": "soft parameter sharing",
    "F3": "feature sharing",
    "F4": "modality fusion",
    "F5": "attention",
    "F6": "adversarial training",
    "F7": "self-supervised learning",
    "S1": "data preparation",
    "S2": "architecture",
    "S3": "initialisation",
    "S4": "feature extraction per modality",
    "S5": "feature fusion",
    "S6": "task-specific modules",
    "S7": "a loss per task",
    "S8": "loss fusion by a weighted sum",
    "S9": "backpropagation",
    "S10": "evaluation",
    "S11": "tuning",
    "S12": "deployment",
    "D1": "computer vision",
    "D2": "natural language",
    "D3": "speech",
    "D4": "health",
    "D5": "driving",
}

ARROWS = ("encoders", "fusion", "sharing", "heads", "tasks", "balancer")

#: Section of the article → what it says.
SECTIONS = {
    "1.1": "one model per task is wasteful, and data has many modalities",
    "1.2": "the state of research",
    "1.3": "why it matters: the advantages A1 to A5",
    "1.4": "what is to follow, up to tools and trends",
    "2": "the core concepts and how they are connected",
    "3.1": "seven families of methods, F1 to F7",
    "3.2": "twelve steps, S1 to S12",
    "3.3": "advantages A1 to A6 and challenges C1 to C7",
    "3.4": "domains, D1 to D5",
}
