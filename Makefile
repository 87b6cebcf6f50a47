.PHONY: setup tune test
setup:
	@sh scripts/setup
tune: setup
	@sh scripts/tune
test:
	@sh scripts/test
