"""Small without training, on five nets: `fold` beside magnitude, a ramp in training and nets of that size."""
