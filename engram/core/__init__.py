"""The nouns of Engram: Task, Phase, Data, Spec, Recipe, Predictor, Plan, events, Mesh. Imports torch and nothing of ours."""
