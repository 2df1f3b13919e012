"""The benchmark harness: one file a subject, run by bench/run.py, results under results/."""
