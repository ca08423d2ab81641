# memwarp on any machine with Python 3.10-3.12, a C++ compiler, cmake and make. No root, no installed ROS.
#
#   make demo [VIDEO=path]   run the detector as a ROS 2 node on a camera stream; look into out/demo
#   make test                everything that has to hold: lint, types, unit tests, end-to-end tests, a short demo
#   make check               the quick part of it
#   make build               only .venv and .build
#   make clean               remove both, and out/
#
# On a machine with ROS 2 this file is not needed: colcon build.

PYTHON ?= $(firstword $(foreach name,python3.12 python3.11 python3.10 python3,$(if $(shell \
  $(name) -c 'import sys; print(1 if (3, 10) <= sys.version_info < (3, 13) else "")' 2>/dev/null),$(name))))
VENV := .venv
INSTALL := .build/install
RUN := ros_from_pip/run
# Two at a time, each on one core. Tests of one file may share a node, so they stay together; each node has a ROS domain
# of its own.
PYTEST := OMP_NUM_THREADS=1 $(RUN) pytest -n 2
PYTEST_CORE := $(PYTEST) tests/memwarp_core tests/examples tests/test_core_without_ros.py
PYTEST_ROS := $(PYTEST) --dist loadfile tests/memwarp_ros

# The stamp is written last, so a half-made environment has none. Its name holds the folder, which is written all over an
# environment and a build and so cannot change, and what was asked for, which can.
PLACE := $(shell echo "$(CURDIR)" | cksum | cut -d ' ' -f 1)
REQUIREMENTS := $(shell cat setup.py ros_from_pip/requirements.txt ros_from_pip/relocate_wheels.py | cksum | cut -d ' ' -f 1)
VENV_STAMP := $(VENV)/made-$(PLACE)-$(REQUIREMENTS)

# The installed tree links to the sources, so it is rebuilt when a file comes or goes and when an interface changes.
INTERFACES := CMakeLists.txt package.xml $(shell find msg ros_from_pip/vision_msgs -type f)
BUILD_STAMP := .build/made
FILE_LIST := .build/files

.PHONY: demo test check build lint clean
.DELETE_ON_ERROR:

demo: build
	$(RUN) python -m memwarp_ros.demo --output out/demo $(if $(VIDEO),--video "$(VIDEO)")

test: lint
	$(PYTEST_CORE)
	$(PYTEST_ROS)

check: lint
	$(PYTEST_CORE) -m "not slow"
	$(PYTEST_ROS) -m "not slow"

lint: build
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

build: $(BUILD_STAMP)

$(VENV_STAMP):
	@for tool in cmake c++; do command -v $$tool > /dev/null || { echo "expected $$tool, found none; install it" >&2; exit 1; }; done
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' || { \
	  echo "expected Python 3.10, 3.11 or 3.12, found $(or $(PYTHON),none); name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@ls $(VENV)/made-$(PLACE)-* > /dev/null 2>&1 || { rm -rf .build && $(PYTHON) -m venv --clear $(VENV); }
	@rm -f $(VENV)/made-*
	@echo "Filling $(VENV): some minutes and several GB, once"
	$(VENV)/bin/python -m pip install --requirement ros_from_pip/requirements.txt --editable '.[all]'
	$(VENV)/bin/python ros_from_pip/relocate_wheels.py
	@touch $@

# Written anew only when the list differs.
$(FILE_LIST): FORCE
	@mkdir -p $(@D)
	@find memwarp_core memwarp_ros launch config -type f -not -name '*.pyc' | LC_ALL=C sort > $@.new
	@if cmp -s $@.new $@; then rm $@.new; else mv $@.new $@; fi

.PHONY: FORCE
FORCE:

$(BUILD_STAMP): $(VENV_STAMP) $(FILE_LIST) $(INTERFACES)
	$(RUN) colcon --log-base .build/log build --merge-install --symlink-install \
	  --paths ros_from_pip/vision_msgs . --build-base .build/build --install-base $(INSTALL) \
	  --cmake-args -DBUILD_TESTING=OFF -DPython3_EXECUTABLE="$(CURDIR)/$(VENV)/bin/python"
	@find $(INSTALL) -xtype l -delete
	@touch $@

clean:
	rm -rf $(VENV) .build out
