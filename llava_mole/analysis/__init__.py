"""What a trained model's routers do, as numbers and pictures."""
