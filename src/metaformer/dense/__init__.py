"""Models of boxes, instances and regions: a backbone's maps, a pyramid, a head. Below weights, which makes them."""
