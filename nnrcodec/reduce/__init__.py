"""Parameter reduction: from a model to a model with fewer parameters, and back."""
