from hypothesis import settings

# Tests draw the same examples in every run, so that what fails is the change at hand; others with
# pytest --hypothesis-profile new. No deadline: a busy machine is no failure.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None)
settings.load_profile("same")
