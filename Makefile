# Builds the program build/conr, the library build/libconr.so and their tests.  `make help` lists the targets,
# `make info` what was found.  Everything made lands in $(BUILD).

VERSION   := 0.1.0
SOVERSION := 0

BUILD   ?= build
PREFIX  ?= /usr/local
BINDIR  ?= $(PREFIX)/bin
LIBDIR  ?= $(PREFIX)/lib
INCDIR  ?= $(PREFIX)/include
MANDIR  ?= $(PREFIX)/share/man
# The program looks for them at ../share/conr of its own folder.
RECIPEDIR = $(PREFIX)/share/conr/recipes
SLURMDIR  = $(PREFIX)/share/conr/slurm
MACHINEDIR = $(PREFIX)/share/conr/machines
SUPERVISE = $(PREFIX)/share/conr/supervise
DESTDIR ?=
JOBS    ?= $(or $(shell nproc 2>/dev/null),2)

# Tests: Criterion jobs, seconds for one test binary, binaries whose tests must not run side by side, and binaries that
# mostly wait (and look at no processes but their own): they run beside the others.
TEST_JOBS    ?= 2
TEST_TIMEOUT ?= 900
SERIAL_TESTS ?= test_device_comm test_cluster
ASIDE_TESTS  ?= test_cluster
GOLDEN_DIR   ?= tests/golden
BENCH        ?= loss

MAKEFLAGS += --no-print-directory --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

# ---------------------------------------------------------------- what was found
# Nothing here fails: launch/install-deps compiles and links a probe with these flags and says what is missing.

comma := ,

# MPI: the wrapper is asked what it would run; Open MPI, MPICH and their kin all answer -show.  A wrapper that does
# not answer (Cray's cc) is the compiler itself.
MPICC    ?= mpicc
MPI_SHOW := $(shell $(MPICC) -show 2>/dev/null)
ifeq ($(origin CC),default)
  CC := $(or $(firstword $(MPI_SHOW)),$(shell command -v $(MPICC) 2>/dev/null),gcc)
endif
MPI_WORDS  := $(wordlist 2,999,$(MPI_SHOW))
MPI_LIBS   ?= $(filter -l% -L% -Wl$(comma)% %.so %.a,$(MPI_WORDS))
MPI_CFLAGS ?= $(filter-out -l% -L% -Wl$(comma)% %.so %.a -c,$(MPI_WORDS))

# HDF5: HDF5_DIR, else pkg-config (the build that fits the MPI first), else the wrapper h5cc.
ifdef HDF5_DIR
  HDF5_CFLAGS ?= -I$(HDF5_DIR)/include
  HDF5_LIBS   ?= -L$(HDF5_DIR)/lib -Wl,-rpath,$(HDF5_DIR)/lib -lhdf5
  HDF5_FROM   := HDF5_DIR
else
  HDF5_FROM   := $(shell for name in $(if $(findstring mpich,$(MPI_SHOW)),hdf5-mpich) \
                   $(if $(findstring openmpi,$(MPI_SHOW)),hdf5-openmpi) hdf5 hdf5-serial hdf5-openmpi hdf5-mpich; do \
                   pkg-config --exists $$name 2>/dev/null && { echo $$name; break; }; done)
  ifneq ($(HDF5_FROM),)
    HDF5_CFLAGS ?= $(shell pkg-config --cflags $(HDF5_FROM))
    HDF5_LIBS   ?= $(shell pkg-config --libs $(HDF5_FROM))
  else
    HDF5_SHOW   := $(shell h5cc -show 2>/dev/null || h5pcc -show 2>/dev/null)
    HDF5_FROM   := $(if $(HDF5_SHOW),h5cc)
    HDF5_CFLAGS ?= $(filter -I% -D%,$(HDF5_SHOW))
    HDF5_LIBS   ?= $(filter -l% -L% -Wl$(comma)% %.so %.a,$(HDF5_SHOW))
  endif
endif

# oneDNN has no pkg-config file in the distributions; DNNL_DIR names another place.
ifdef DNNL_DIR
  DNNL_LIBDIR := $(firstword $(wildcard $(DNNL_DIR)/lib64 $(DNNL_DIR)/lib))
  DNNL_CFLAGS ?= -I$(DNNL_DIR)/include
  DNNL_LIBS   ?= -L$(DNNL_LIBDIR) -Wl,-rpath,$(DNNL_LIBDIR) -ldnnl
else
  DNNL_LIBS   ?= -ldnnl
endif

# The small ones: pkg-config when it knows all three, else the compiler's own paths.
SMALL_CFLAGS ?= $(shell pkg-config --cflags jansson inih zlib 2>/dev/null)
SMALL_LIBS   ?= $(or $(shell pkg-config --libs jansson inih zlib 2>/dev/null),-ljansson -linih -lz) -lcsv

# Images; libjpeg only draws the pictures of the tests.
IMAGE_CFLAGS ?= $(shell pkg-config --cflags libturbojpeg libpng libexif 2>/dev/null)
IMAGE_LIBS   ?= $(or $(shell pkg-config --libs libturbojpeg libpng libexif 2>/dev/null),-lturbojpeg -lpng -lexif)
DRAW_LIBS    ?= $(or $(shell pkg-config --libs libjpeg 2>/dev/null),-ljpeg)

CRITERION_CFLAGS ?= $(shell pkg-config --cflags criterion 2>/dev/null)
CRITERION_LIBS   ?= $(or $(shell pkg-config --libs criterion 2>/dev/null),-lcriterion)

# CUDA with cuDNN and NCCL: all of it, or none.  CUDA_HOME names another place, an empty NVCC none.
ifeq ($(origin NVCC),undefined)
  NVCC := $(or $(shell command -v nvcc 2>/dev/null),$(firstword $(wildcard $(CUDA_HOME)/bin/nvcc \
    /usr/local/cuda/bin/nvcc)))
endif
ifeq ($(origin CUDA_HOME),undefined)
  CUDA_HOME := $(patsubst %/include/cuda_runtime.h,%,$(firstword $(wildcard \
    $(patsubst %/bin/nvcc,%/include/cuda_runtime.h,$(NVCC)) /usr/local/cuda/include/cuda_runtime.h)))
endif
CUDA_HEADERS := cuda_runtime.h cublasLt.h cudnn.h nccl.h nvtx3/nvToolsExt.h
CUDA_MISSING := $(strip $(if $(NVCC),$(foreach header,$(CUDA_HEADERS),$(if $(wildcard $(CUDA_HOME)/include/$(header) \
  /usr/include/$(header) /usr/include/x86_64-linux-gnu/$(header)),,$(header))),nvcc))
CUDA_ARCHS ?= 80 90

COMMIT := $(or $(shell git describe --always --dirty --abbrev=12 2>/dev/null),unknown)

# ---------------------------------------------------------------- flags
# Baseline of the architecture, so that a binary built on a login node runs on every node: hot loops choose their
# instructions when they run.  No -ffast-math: the promises on sums and on non-finite values need IEEE arithmetic.

CFLAGS ?= -O3 -g
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes
ALL_CFLAGS = -std=gnu11 $(CFLAGS) -fPIC -fopenmp -fno-math-errno -fno-trapping-math $(WARNINGS) $(VARIANT_CFLAGS)
ALL_CPPFLAGS = -I. -I$(BUILD) -DCONR_VERSION=\"$(VERSION)\" $(FOUND_CFLAGS) $(CPPFLAGS)
FOUND_CFLAGS = $(patsubst -I%,-isystem %,$(MPI_CFLAGS) $(HDF5_CFLAGS) $(DNNL_CFLAGS) $(SMALL_CFLAGS) \
  $(IMAGE_CFLAGS))
# --as-needed: a test that touches no MPI does not pay for loading it.
ALL_LDFLAGS = -fopenmp $(VARIANT_CFLAGS) $(LDFLAGS) -Wl,--as-needed
LIBS = $(HDF5_LIBS) $(DNNL_LIBS) $(SMALL_LIBS) $(IMAGE_LIBS) $(MPI_LIBS) -lm -lpthread -ldl

# A variant is a build of its own in a folder of its own: `make sanitize`, `make coverage`.
VARIANT ?=
VARIANT_CFLAGS_sanitize := -O1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
VARIANT_CFLAGS_coverage := -O0 --coverage -fprofile-update=atomic
VARIANT_CFLAGS = $(VARIANT_CFLAGS_$(VARIANT))

# What mpirun needs as root, in a container or on fewer cores than ranks; a value from the user's environment wins.
# The binding and the yielding are for programs side by side: with the defaults all share one core and spin.
export OMPI_ALLOW_RUN_AS_ROOT ?= 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM ?= 1
test-run test-golden soak demo bench: export OMPI_MCA_rmaps_base_oversubscribe ?= 1
test-run test-golden soak demo bench: export PRTE_MCA_rmaps_default_mapping_policy ?= :oversubscribe
test-run test-golden soak demo bench: export OMPI_MCA_hwloc_base_binding_policy ?= none
test-run test-golden soak demo: export OMPI_MCA_mpi_yield_when_idle ?= 1
# Tests start MPI a thousand times and more: the others bring libraries that take a fifth of a second to be loaded.
test-run test-golden soak: export OMPI_MCA_pml ?= ob1
# As conr itself has it: MPI_Finalize() ends one program in thousands by SIGSEGV otherwise.
test-run test-golden soak: export OMPI_MCA_mca_base_component_disable_dlclose ?= 1
test-run test-golden: export OMP_NUM_THREADS ?= 2
test-run test-golden: export OMP_WAIT_POLICY ?= passive

# ---------------------------------------------------------------- sources

FOLDERS := dist io model loss launch
# The CUDA backend is a library of its own: these files see CUDA's headers, no other does.
CUDA_SOURCES := $(wildcard $(FOLDERS:%=%/*_cuda.c) dist/comm_nccl.c)
CUDA_KERNELS := $(wildcard $(FOLDERS:%=%/*.cu))
SOURCES := $(filter-out launch/main.c $(CUDA_SOURCES),$(wildcard $(FOLDERS:%=%/*.c)))
MAIN    := $(wildcard launch/main.c)
# The public library: these files, and whatever of the rest the linker finds they need.
LIBCONR_SOURCES := $(filter-out $(CUDA_SOURCES),$(wildcard loss/conr*.c loss/pairwise*.c))
LIBCONR_HEADER  := $(wildcard loss/conr.h)

TEST_SOURCES    := $(wildcard tests/test_*.c)
EXAMPLE_SOURCES := $(wildcard tests/example_*.c)
HELPER_SOURCES  := $(filter-out $(TEST_SOURCES) $(EXAMPLE_SOURCES),$(wildcard tests/*.c))
RANK_SOURCES    := $(wildcard tests/ranks/rank_*.c)

object = $(1:%.c=$(BUILD)/%.o)
OBJECTS := $(call object,$(SOURCES))
TESTS    := $(TEST_SOURCES:tests/%.c=$(BUILD)/tests/%)
RANKS    := $(RANK_SOURCES:tests/ranks/%.c=$(BUILD)/tests/%)
EXAMPLES := $(if $(LIBCONR_HEADER),$(EXAMPLE_SOURCES:tests/%.c=$(BUILD)/tests/%))
GOLDEN_TESTS := $(filter $(BUILD)/tests/test_golden% $(BUILD)/tests/test_trajectory%,$(TESTS))

PROGRAM := $(if $(MAIN),$(BUILD)/conr)
# The backend's library is found in ../lib of the program, where `make install` puts it, and beside it, where it is built.
CUDA_LIBRARY := $(if $(CUDA_MISSING)$(if $(CUDA_SOURCES),,none),,$(BUILD)/libconr-cuda.so)
EMULATION := $(filter-out %/emulated_nvjpeg.cc,$(wildcard tests/emulate/*.cc tests/emulate/*.cu))
EMULATED_OBJECTS := $(patsubst %,$(BUILD)/emulated/%.o,$(CUDA_KERNELS) $(EMULATION))
EMULATED_LIBRARY := $(if $(CUDA_LIBRARY),$(if $(shell command -v $(CXX)),$(BUILD)/libconr-cuda-emulated.so \
  $(BUILD)/libnvjpeg-emulated.so))
LIBRARY := $(if $(LIBCONR_HEADER),$(BUILD)/libconr.so $(BUILD)/libconr.a $(BUILD)/conr.pc $(BUILD)/include/conr.h)
SHARED  := libconr.so.$(VERSION)
SONAME  := libconr.so.$(SOVERSION)

C_FILES := $(wildcard $(FOLDERS:%=%/*.[ch]) $(FOLDERS:%=%/*.cu) $(FOLDERS:%=%/*.cuh) tests/*.[ch] tests/ranks/*.[ch] \
  tests/emulate/*)

# ---------------------------------------------------------------- rules

.PHONY: all
all: $(PROGRAM) $(LIBRARY) $(CUDA_LIBRARY) ## build the program and the library
	@:

# One short line for each step; V=1 shows the commands.
say = $(if $(V),@:,@echo) ' '
Q   = $(if $(V),,@)

# The flags, and the lists of objects, are files: a change of either rebuilds what depends on it, nothing else does.
quote = '$(subst ','\'',$(1))'
remember = @mkdir -p $(@D); printf '%s\n' $(call quote,$(1)) | cmp -s - $@ || printf '%s\n' $(call quote,$(1)) >$@

$(BUILD)/flags: FORCE
	$(call remember,$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) | $(ALL_LDFLAGS) $(LIBS))
$(BUILD)/objects: FORCE
	$(call remember,$(OBJECTS))
$(BUILD)/helpers: FORCE
	$(call remember,$(HELPER_SOURCES))
$(BUILD)/version.h: FORCE
	$(call remember,#define CONR_COMMIT "$(COMMIT)")

# Missing packages are told in one line, before the first compiler error.
PROBE = PROBE_CC=$(call quote,$(CC)) PROBE_CFLAGS=$(call quote,$(FOUND_CFLAGS) $(CPPFLAGS)) \
  PROBE_LIBS=$(call quote,$(LDFLAGS) $(LIBS)) PROBE_TEST_FLAGS=$(call quote,$(CRITERION_CFLAGS) $(CRITERION_LIBS) \
  $(DRAW_LIBS))
$(BUILD)/dependencies: $(BUILD)/flags
	@$(PROBE) launch/install-deps --check
	@touch $@

$(BUILD)/%.o: %.c $(BUILD)/flags | $(BUILD)/dependencies $(BUILD)/version.h
	@mkdir -p $(@D)
	$(say)CC $<
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) $(EXTRA_CFLAGS) -MMD -MP -c $< -o $@

# What the host and CUDA are to compute to the bit (io/inline.h) is rounded after each product.
$(BUILD)/io/colour.o $(BUILD)/io/triangle.o: EXTRA_CFLAGS = -ffp-contract=off
$(BUILD)/emulated/io/%.cu.o: EXTRA_CFLAGS = -ffp-contract=off
$(BUILD)/io/%.cu.o: EXTRA_NVCC_FLAGS = --fmad=false

$(BUILD)/libconr-all.a: $(OBJECTS) $(BUILD)/objects
	@rm -f $@
	$(say)AR $@
	$(Q)ar rcs $@ $(OBJECTS)

# The backend's library calls back into the program that opened it: for these functions.
EXPORTED := fail memory_alloc memory_alloc_zero memory_free log_seconds device_alloc device_free device_alloc_pinned \
  device_free_pinned device_copy device_zero device_wait device_attach device_main event_create event_destroy \
  event_record event_mark event_reached event_seconds event_wait stream_create stream_destroy stream_copy stream_zero \
  stream_wait_event workspace_reserve comm_rank comm_size comm_gather_rows comm_sum comm_agree comm_fail comm_traffic \
  comm_device_wait rendezvous_share rendezvous_forget replay_call replay_note conr_blocks_create conr_blocks_begin \
  conr_blocks_place conr_blocks_gather conr_blocks_progress conr_blocks_finish conr_blocks_in_flight \
  conr_blocks_destroy check_conr_options rule_of_options check_label_span name_bad_scalar precision_name \
  status_set_agreed metrics_places_create metrics_places_free metrics_targets metrics_gmean_rule \
  metrics_bad_prediction metrics_finish balanced_prior accon_check accon_rule_of rnc_check
EXPORT_FLAGS = $(EXPORTED:%=-Wl,--export-dynamic-symbol=%) $(EXPORTED:%=-Wl,-u,%)
$(BUILD)/exports: FORCE
	$(call remember,$(EXPORTED) $(OPEN_DEVICES))
$(BUILD)/conr: $(BUILD)/launch/main.o $(BUILD)/libconr-all.a $(BUILD)/exports
	$(say)LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(EXPORT_FLAGS) $(filter %.o %.a,$^) $(LIBS) -o $@

# The CUDA backend.  Host code of nvcc is linked by the C compiler; the sort of CUDA's library refers to that of C++,
# which cuDNN needs anyway.
CUDA_CODE = $(foreach arch,$(CUDA_ARCHS),-gencode arch=compute_$(arch),code=sm_$(arch)) \
  -gencode arch=compute_$(lastword $(CUDA_ARCHS)),code=compute_$(lastword $(CUDA_ARCHS))
NVCC_FLAGS = -O3 -std=c++17 -lineinfo --Werror all-warnings $(CUDA_CODE) -Xcompiler \
  -fPIC,-fno-threadsafe-statics,-fno-exceptions,-fno-rtti,-Wall,-Wextra,-Werror
CUDA_LIBS = -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcublasLt -lcudnn -lnccl -lcudart -lstdc++ -ldl
$(CUDA_SOURCES:%.c=$(BUILD)/%.o): EXTRA_CFLAGS = -isystem $(CUDA_HOME)/include -Werror
$(BUILD)/cuda-flags: FORCE
	$(call remember,$(NVCC) $(NVCC_FLAGS) | $(CUDA_HOME) | $(CXX) $(CXX_FLAGS) $(EMULATED))
$(CUDA_SOURCES:%.c=$(BUILD)/%.o): $(BUILD)/cuda-flags
$(BUILD)/%.cu.o: %.cu $(BUILD)/cuda-flags | $(BUILD)/dependencies
	@mkdir -p $(@D)
	$(say)NVCC $<
	$(Q)$(NVCC) $(NVCC_FLAGS) $(EXTRA_NVCC_FLAGS) -I. -MMD -MP -c $< -o $@
# What it calls of the program must be exported there, or it cannot be opened.
$(BUILD)/libconr-cuda.so: $(CUDA_SOURCES:%.c=$(BUILD)/%.o) $(CUDA_KERNELS:%=$(BUILD)/%.o) $(BUILD)/libconr-all.a
	$(say)LINK $@
	$(Q)$(CC) -shared $(ALL_LDFLAGS) -Wl,-soname,libconr-cuda.so $(filter %.o,$^) $(CUDA_LIBS) -o $@
	@nm -g --defined-only $(BUILD)/libconr-all.a 2>/dev/null | awk 'NF == 3 { print $$3 }' | sort -u >$@.program
	@for name in $$(nm -D --undefined-only $@ | awk '{ print $$NF }' | sort -u | comm -12 - $@.program); do \
	  case ' $(EXPORTED) ' in *" $$name "*) ;; *) echo "add $$name to EXPORTED in the Makefile" >&2; exit 1 ;; esac; done

# The same backend over an emulation of CUDA, for tests on machines without a GPU: tests/emulate.
CXX_FLAGS = -std=c++17 $(CFLAGS) -fPIC -fno-math-errno -fno-trapping-math -Wall -Wextra -Werror $(VARIANT_CFLAGS)
EMULATED = -Itests/emulate -isystem $(CUDA_HOME)/include -Wno-unknown-pragmas -fno-strict-aliasing -U_FORTIFY_SOURCE
$(BUILD)/emulated/%.o: % $(BUILD)/flags $(BUILD)/cuda-flags | $(BUILD)/dependencies
	@mkdir -p $(@D)
	$(say)CXX $<
	$(Q)$(CXX) -x c++ -I. $(EMULATED) $(FOUND_CFLAGS) $(CXX_FLAGS) $(EXTRA_CFLAGS) -MMD -MP -c $< -o $@
# Two of these are the slow parts, and multiply matrices; the third says by how many threads.
$(addprefix $(BUILD)/emulated/tests/emulate/emulated_,cublaslt.cc.o cudnn.cc.o cuda.cc.o): EXTRA_CFLAGS = -fopenmp
$(BUILD)/libconr-cuda-emulated.so: $(CUDA_SOURCES:%.c=$(BUILD)/%.o) $(EMULATED_OBJECTS)
	$(say)LINK $@
	$(Q)$(CXX) -shared $(ALL_LDFLAGS) -Wl,-soname,libconr-cuda-emulated.so $^ $(DNNL_LIBS) -lpthread -lm -ldl -o $@

# nvJPEG in that emulation, opened as the real one is.  It means the same device memory: that library is loaded already.
$(BUILD)/libnvjpeg-emulated.so: $(BUILD)/emulated/tests/emulate/emulated_nvjpeg.cc.o $(BUILD)/libconr-cuda-emulated.so
	$(say)LINK $@
	$(Q)$(CXX) -shared $(ALL_LDFLAGS) $^ -Wl,-rpath,'$$ORIGIN' $(IMAGE_LIBS) -o $@

# The public library: only conr_* leaves it, from the shared and from the static one.
$(BUILD)/libconr.map: Makefile
	@mkdir -p $(@D)
	@printf '{ global: conr_*; local: *; };\n' >$@
$(BUILD)/$(SHARED): $(call object,$(LIBCONR_SOURCES)) $(BUILD)/libconr-all.a $(BUILD)/libconr.map
	$(say)LINK $@
	$(Q)$(CC) -shared $(ALL_LDFLAGS) -Wl,-soname,$(SONAME) -Wl,--version-script,$(BUILD)/libconr.map \
	  -Wl,--no-undefined $(filter %.o %.a,$^) $(LIBS) -o $@
$(BUILD)/libconr.so: $(BUILD)/$(SHARED)
	@ln -sf $(SHARED) $(BUILD)/$(SONAME)
	@ln -sf $(SONAME) $@
$(BUILD)/libconr.a: $(call object,$(LIBCONR_SOURCES)) $(BUILD)/libconr-all.a
	$(say)AR $@
	@rm -f $@
	$(Q)ld -r $^ -o $(BUILD)/libconr.o
	$(Q)objcopy --wildcard --keep-global-symbol='conr_*' $(BUILD)/libconr.o
	$(Q)ar rcs $@ $(BUILD)/libconr.o
$(BUILD)/include/conr.h: $(LIBCONR_HEADER)
	@mkdir -p $(@D)
	@cp $< $@
$(BUILD)/conr.pc: launch/conr.pc.in $(BUILD)/flags
	@sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR:$(PREFIX)/%=$${prefix}/%)|' \
	  -e 's|@INCDIR@|$(INCDIR:$(PREFIX)/%=$${prefix}/%)|' -e 's|@VERSION@|$(VERSION)|' \
	  -e 's|@MPI_CFLAGS@|$(strip $(MPI_CFLAGS))|' -e 's|@MPI_LIBS@|$(strip $(MPI_LIBS))|' \
	  -e 's|@LIBS@|$(strip $(DNNL_LIBS)) -fopenmp -lm|' $< >$@

.PHONY: install
install: all ## install program, library, header and man page under PREFIX (DESTDIR is put in front)
	install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1
	$(if $(PROGRAM),install -m 755 $(BUILD)/conr $(DESTDIR)$(BINDIR)/conr)
	install -m 644 launch/conr.1 $(DESTDIR)$(MANDIR)/man1/conr.1
	install -d $(DESTDIR)$(RECIPEDIR)
	install -m 644 launch/recipes/*.conf $(DESTDIR)$(RECIPEDIR)
	install -d $(DESTDIR)$(SLURMDIR)
	install -m 755 launch/slurm/job $(DESTDIR)$(SLURMDIR)/job
	install -d $(DESTDIR)$(MACHINEDIR)
	install -m 644 launch/machines/*.ini $(DESTDIR)$(MACHINEDIR)
	install -m 755 launch/supervise $(DESTDIR)$(SUPERVISE)
ifneq ($(CUDA_LIBRARY),)
	install -d $(DESTDIR)$(LIBDIR)
	install -m 755 $(CUDA_LIBRARY) $(DESTDIR)$(LIBDIR)/libconr-cuda.so
endif
ifneq ($(LIBRARY),)
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCDIR)
	install -m 755 $(BUILD)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED)
	ln -sf $(SHARED) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libconr.so
	install -m 644 $(BUILD)/libconr.a $(DESTDIR)$(LIBDIR)/libconr.a
	install -m 644 $(BUILD)/include/conr.h $(DESTDIR)$(INCDIR)/conr.h
	@rm -f $(BUILD)/conr.pc && $(MAKE) $(BUILD)/conr.pc
	install -m 644 $(BUILD)/conr.pc $(DESTDIR)$(LIBDIR)/pkgconfig/conr.pc
endif

.PHONY: uninstall
uninstall: ## remove what `make install` put there (same PREFIX and DESTDIR)
	rm -f $(addprefix $(DESTDIR),$(BINDIR)/conr $(MANDIR)/man1/conr.1 $(LIBDIR)/$(SHARED) $(LIBDIR)/$(SONAME) \
	  $(LIBDIR)/libconr-cuda.so $(LIBDIR)/libconr.so $(LIBDIR)/libconr.a $(INCDIR)/conr.h $(LIBDIR)/pkgconfig/conr.pc \
	  $(patsubst launch/recipes/%,$(RECIPEDIR)/%,$(wildcard launch/recipes/*.conf)) $(SLURMDIR)/job \
	  $(patsubst launch/machines/%,$(MACHINEDIR)/%,$(wildcard launch/machines/*.ini)) $(SUPERVISE))
	@rmdir $(DESTDIR)$(RECIPEDIR) $(DESTDIR)$(SLURMDIR) $(DESTDIR)$(MACHINEDIR) $(dir $(DESTDIR)$(RECIPEDIR)) 2>/dev/null || true

.PHONY: clean
clean: ## remove $(BUILD)
	rm -rf $(BUILD)

# ---------------------------------------------------------------- tests
# tests/test_x.c is one Criterion binary; tests/ranks/rank_x.c one MPI program that tests start with run_ranks();
# tests/example_x.c sees nothing but the installed header and libconr.so; the other files in tests/ are helpers.

$(BUILD)/libtests.a: $(call object,$(HELPER_SOURCES)) $(BUILD)/helpers
	@rm -f $@
	$(say)AR $@
	$(Q)ar rcs $@ $(filter %.o,$^)

$(call object,$(TEST_SOURCES) $(HELPER_SOURCES)): EXTRA_CFLAGS = $(CRITERION_CFLAGS)
# Those that open devices export what the conr program does, and so link all of that; the others stay small.
OPEN_DEVICES := $(shell grep -lE '"(dist/device|dist/comm_device|dist/host_copy|io/device_images|tests/emulated|tests/device_support)\.h"' $(TEST_SOURCES) $(RANK_SOURCES) /dev/null)
export_flags = $(if $(filter $(1),$(OPEN_DEVICES)),$(EXPORT_FLAGS))
$(TESTS): $(BUILD)/tests/%: $(BUILD)/tests/%.o $(BUILD)/libtests.a $(BUILD)/libconr-all.a $(BUILD)/exports
	$(say)LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(call export_flags,tests/$*.c) $(filter %.o %.a,$^) $(CRITERION_LIBS) $(DRAW_LIBS) $(LIBS) -o $@
$(RANKS): $(BUILD)/tests/%: $(BUILD)/tests/ranks/%.o $(BUILD)/libtests.a $(BUILD)/libconr-all.a $(BUILD)/exports
	$(say)LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) $(call export_flags,tests/ranks/$*.c) $(filter %.o %.a,$^) $(DRAW_LIBS) $(LIBS) -o $@
$(EXAMPLES): $(BUILD)/tests/%: tests/%.c $(BUILD)/include/conr.h $(BUILD)/libconr.so $(BUILD)/flags
	$(say)LINK $@
	@mkdir -p $(@D)
	$(Q)$(CC) -I$(BUILD)/include $(FOUND_CFLAGS) $(ALL_CFLAGS) $< $(ALL_LDFLAGS) -L$(BUILD) -lconr \
	  -Wl,-rpath,'$$ORIGIN/..' $(LIBS) -o $@

# Inside make the jobs are shared with the caller's -j; without one, use the cores.
submake = +$(MAKE) $(if $(filter -j%,$(MAKEFLAGS)),,-j$(JOBS))

.PHONY: tests golden-tests test test-run test-cluster test-golden soak
tests: all $(TESTS) $(RANKS) $(EXAMPLES) $(EMULATED_LIBRARY) ## build all tests, run none
	@:
golden-tests: all $(GOLDEN_TESTS) $(RANKS) $(EMULATED_LIBRARY)
	@:

test: ## install what is missing, build, run all tests, check the arrows
	@$(PROBE) launch/install-deps --tests
	@$(submake) tests
	@+$(MAKE) test-run

test-run:
	@TEST_JOBS=$(TEST_JOBS) TEST_TIMEOUT=$(TEST_TIMEOUT) SERIAL_TESTS='$(SERIAL_TESTS)' ASIDE_TESTS='$(ASIDE_TESTS)' \
	  GOLDEN_DIR='$(GOLDEN_DIR)' tests/run $(BUILD) $(notdir $(TESTS)); result=$$?; $(MAKE) arrows && exit $$result

# What is packed stands in tests/gpu/bundle; CUDA_ARCHS=90 leaves out the code for other GPUs.
.PHONY: gpu-bundle gpu-programs
gpu-programs: $(PROGRAM) $(CUDA_LIBRARY) $(TESTS) $(RANKS)
	@:
gpu-bundle: ## pack programs, device tests and libraries for tests/gpu/run on a bare GPU machine
	@$(if $(CUDA_LIBRARY),,echo 'gpu-bundle: no CUDA backend here ($(or $(CUDA_MISSING),no sources)); see make info' >&2; exit 1)
	@$(PROBE) launch/install-deps --tests
	@$(submake) gpu-programs
	@tests/gpu/bundle $(BUILD)

test-cluster: ## only the tests on several hosts, and on a real Slurm on them, made of this machine (root)
	@$(PROBE) launch/install-deps --tests
	@$(submake) tests
	@TEST_JOBS=1 TEST_TIMEOUT=$(TEST_TIMEOUT) tests/run $(BUILD) test_cluster test_cli_slurm test_supervise

soak: ## kill a training SOAK_KILLS times (100) with -9 at random moments; SOAK_SEED repeats one
	@$(PROBE) launch/install-deps --tests
	@$(submake) $(PROGRAM) $(BUILD)/tests/test_soak
	@SOAK_KILLS=$(or $(SOAK_KILLS),100) $(BUILD)/tests/test_soak

test-golden: ## only the stored cases in GOLDEN_DIR (default tests/golden), with how many ran
	@$(PROBE) launch/install-deps --tests
	@$(submake) golden-tests
	@TEST_JOBS=$(TEST_JOBS) TEST_TIMEOUT=$(TEST_TIMEOUT) SERIAL_TESTS='$(SERIAL_TESTS)' GOLDEN_DIR='$(GOLDEN_DIR)' \
	  tests/run --golden $(BUILD) $(notdir $(GOLDEN_TESTS))

.PHONY: demo bench
demo: ## install what is missing, build, then train, evaluate and show a small model
	@$(PROBE) launch/install-deps
	@$(submake) all
	@launch/demo $(BUILD)

bench: ## measure this machine: `conr bench loss` (another subject: BENCH=...)
	@$(submake) all
	@for what in $(BENCH); do $(BUILD)/conr bench $$what || exit 1; done

# ---------------------------------------------------------------- tools

.PHONY: arrows
arrows: ## check the include direction: dist <- io <- model <- loss <- launch, tests see all
	@tests/arrows .

.PHONY: format format-check
format: ## reformat all C files
	@clang-format -i $(C_FILES)
format-check: ## fail if a C file is not formatted
	@clang-format --dry-run -Werror $(C_FILES)

# Off: advice that fights the house style (neighbours of one type, int in index arithmetic, member order), copies whose
# room was checked just before, sizes of arrays of pointers, demands for Annex K functions that no C library here has,
# and a checker that expects each MPI request to be waited for in the function that started it.
TIDY_OFF := bugprone-easily-swappable-parameters bugprone-narrowing-conversions bugprone-reserved-identifier \
  bugprone-sizeof-expression bugprone-implicit-widening-of-multiplication-result \
  clang-analyzer-optin.performance.Padding clang-analyzer-optin.mpi.MPI-Checker \
  clang-analyzer-security.insecureAPI.strcpy clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling
TIDY_CHECKS = -*,bugprone-*,clang-analyzer-*,mpi-*$(subst $() ,,$(TIDY_OFF:%=,-%))
TIDY_FILES  ?= $(SOURCES) $(MAIN) $(HELPER_SOURCES) $(RANK_SOURCES)
.PHONY: tidy
tidy: $(BUILD)/version.h ## clang-tidy and cppcheck; no finding is allowed
	@mkdir -p $(BUILD)/clang && rm -f $(BUILD)/clang/omp.h && \
	  sed 's/__malloc__ *([a-z_]*)/__malloc__/' "$$($(CC) -print-file-name=include/omp.h)" >$(BUILD)/clang/omp.h
	@printf '%s\n' -std=gnu11 -fopenmp -I$(CURDIR) -I$(abspath $(BUILD)) -I$(abspath $(BUILD)/clang) \
	  $(filter-out -I.,$(ALL_CPPFLAGS)) $(CRITERION_CFLAGS) >$(BUILD)/compile_flags.txt
	@printf '%s\n' $(TIDY_FILES) | xargs -P$(JOBS) -n1 clang-tidy -p $(BUILD) --quiet --warnings-as-errors='*' \
	  --checks='$(TIDY_CHECKS)' 2>$(BUILD)/tidy.log || { cat $(BUILD)/tidy.log >&2; exit 1; }
	@cppcheck -q -j$(JOBS) --std=c11 --language=c --enable=warning,performance,portability --inline-suppr \
	  --suppress=missingIncludeSystem --error-exitcode=1 -I. -I$(BUILD) -DCONR_VERSION=\"$(VERSION)\" $(TIDY_FILES)
	@echo 'tidy: $(words $(TIDY_FILES)) files, no findings'

# A leak does not fail a Criterion test (its result is sent before the leak check), so each report is a file, and a
# file with an error is a failure.  An allocation that cannot be had returns NULL, as it does without the sanitizer.
SANITIZE_LOGS = $(abspath $(BUILD))/sanitize/reports
SANITIZE_MORE = allocator_may_return_null=1:log_path=$(SANITIZE_LOGS)/report
.PHONY: sanitize
sanitize: export ASAN_OPTIONS = fast_unwind_on_malloc=0:detect_stack_use_after_return=1:$(SANITIZE_MORE)
sanitize: export LSAN_OPTIONS = suppressions=$(abspath tests/lsan.supp):print_suppressions=0
sanitize: export UBSAN_OPTIONS = print_stacktrace=1
sanitize: export CONR_TIME_FACTOR = 4
# A variant of the program lies one folder deeper than the program looks from.
sanitize coverage: export CONR_RECIPES = $(abspath launch/recipes)
sanitize coverage: export CONR_MACHINES = $(abspath launch/machines)
sanitize coverage: export CONR_SLURM = $(abspath launch/slurm)
sanitize: ## all tests under AddressSanitizer and UndefinedBehaviorSanitizer, leaks included
	@$(PROBE) launch/install-deps --tests
	@rm -rf $(SANITIZE_LOGS) && mkdir -p $(SANITIZE_LOGS)
	@$(submake) BUILD=$(BUILD)/sanitize VARIANT=sanitize tests
	@+$(MAKE) BUILD=$(BUILD)/sanitize VARIANT=sanitize TEST_TIMEOUT=$$((4 * $(TEST_TIMEOUT))) test-run; result=$$?; \
	  reports=$$(grep -rlE 'ERROR: |runtime error: ' $(SANITIZE_LOGS)); for report in $$reports; do cat $$report; done; \
	  echo "sanitize: $$(echo $$reports | wc -w) reports in $(SANITIZE_LOGS)"; test $$result = 0 && test -z "$$reports"

.PHONY: coverage
coverage: ## run all tests with gcov and print the share of lines reached
	@$(PROBE) launch/install-deps --tests
	@$(submake) BUILD=$(BUILD)/coverage VARIANT=coverage tests
	@find $(BUILD)/coverage -name '*.gcda' -delete
	@+$(MAKE) BUILD=$(BUILD)/coverage VARIANT=coverage TEST_TIMEOUT=$$((4 * $(TEST_TIMEOUT))) test-run
	@cd $(BUILD)/coverage && if command -v lcov >/dev/null; then \
	  { lcov -q -c -i -d . --no-external -b '$(CURDIR)' -o none.info && \
	  lcov -q -c -d . --no-external -b '$(CURDIR)' -o some.info && lcov -q -a none.info -a some.info -o all.info && \
	  lcov -q -r all.info '*/tests/*' -o conr.info && lcov --list conr.info; } 2>lcov.log || { cat lcov.log; exit 1; }; \
	else echo 'coverage: lcov is not installed; the totals of gcov follow'; \
	  find . -name '*.gcno' -not -path '*/tests/*' -exec gcov -n {} + 2>/dev/null | awk -F"[':% ]+" '\
	    /^File/ { file = $$2 } /^Lines/ && file ~ /\.c$$/ && file !~ /^\// { \
	      printf "%-32s %6.1f%% of %d lines\n", file, $$3, $$5; hit += $$3 * $$5 / 100; all += $$5 } \
	    END { printf "%-32s %6.1f%% of %d lines\n", "total", 100 * hit / (all ? all : 1), all }'; fi

# ---------------------------------------------------------------- help

found = $(if $(strip $(1)),$(1),not found)
.PHONY: info
info: ## what was found, what is built, and why something is not
	@echo 'conr       $(VERSION) ($(COMMIT))'
	@echo 'compiler   $(CC): '"$$($(CC) --version 2>/dev/null | head -n 1)"
	@echo 'flags      $(ALL_CFLAGS)'
	@echo 'MPI        $(call found,$(MPI_LIBS)) ($(MPICC)): '"$$(mpirun --version 2>/dev/null | head -n 1)"
	@echo 'HDF5       $(call found,$(HDF5_LIBS)) (by $(or $(HDF5_FROM),nothing)) '"$$(pkg-config --modversion \
	  $(HDF5_FROM) 2>/dev/null)"', files are read by the serial driver'
	@echo 'oneDNN     $(DNNL_LIBS) '"$$(printf '#include <oneapi/dnnl/dnnl_version.h>\nDNNL_VERSION_MAJOR.%s\n' \
	  DNNL_VERSION_MINOR | $(CC) $(FOUND_CFLAGS) -E -P - 2>/dev/null | tail -n 1 | tr -d ' ')"
	@echo 'small      $(SMALL_LIBS)'
	@echo 'images     $(IMAGE_LIBS) '"$$(pkg-config --modversion libturbojpeg libpng libexif 2>/dev/null | tr '\n' ' ')"
	@echo 'tests      Criterion '"$$(pkg-config --modversion criterion 2>/dev/null || echo 'not known to pkg-config')"
	@echo 'CUDA       $(if $(CUDA_MISSING),CPU only: no $(CUDA_MISSING),$(CUDA_HOME)$(comma) for sm_$(subst $() ,$(comma) \
	  sm_,$(CUDA_ARCHS)))'
	@$(PROBE) launch/install-deps --tests --check && echo 'missing    nothing'

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo '  make print-VAR      value of a variable, such as print-CFLAGS'
	@echo 'Variables: BUILD, PREFIX, DESTDIR, CC, MPICC, CFLAGS, HDF5_DIR, DNNL_DIR, GOLDEN_DIR, TEST_JOBS, BENCH'

print-%:
	@echo '$* = '$(call quote,$($*))' ($(origin $*))'

# For launch/install-deps when a person starts it: the same flags as above.
.PHONY: probe
probe:
	@echo $(call quote,$(PROBE))

.PHONY: FORCE
FORCE:

-include $(OBJECTS:.o=.d) $(EMULATED_OBJECTS:.o=.d) $(BUILD)/emulated/tests/emulate/emulated_nvjpeg.cc.d $(CUDA_SOURCES:%.c=$(BUILD)/%.d) $(CUDA_KERNELS:%=$(BUILD)/%.d) $(patsubst %.c,$(BUILD)/%.d,$(MAIN) $(TEST_SOURCES) $(HELPER_SOURCES) $(RANK_SOURCES))
