package children
func playTracer() {}
func playReuse() {}
