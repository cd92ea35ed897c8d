"""Where data sets come from: each module gives raw fields and knows no model."""
