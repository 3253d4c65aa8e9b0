"""Makes labels: context rules, injection, T-SMOTE."""
