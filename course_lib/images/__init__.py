"""Reading images: a file, a folder, a data set of torchvision's; and the cache they go into."""
