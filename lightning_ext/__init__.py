"""PyTorch Lightning callbacks around the convergence engine: stop training, keep the best model, say why."""
