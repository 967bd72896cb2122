"""For people: run (train, load), command line, report, scikit-learn."""
