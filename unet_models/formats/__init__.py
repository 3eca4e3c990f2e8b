"""Files that other programs read and write: diffusers and CLIP folders, ONNX, torch.export."""
