"""Class-conditional pixel models, trained on labelled images; an oracle never saw one class."""
