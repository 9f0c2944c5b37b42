"""llama-server's dialect: what it has beside OpenAI's paths, whose parameters, frames and errors it shares."""
