"""The simulation: a real HTTP server that speaks the chat-completions protocol, with a scripted model behind it."""
