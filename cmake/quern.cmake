# SPDX-License-Identifier: Apache-2.0
# Build helpers: one static library per folder, tests, fuzz targets.

set(QN_C_FLAGS -Wall -Wextra -Wshadow -Wconversion
    $<$<C_COMPILER_ID:GNU>:-Wno-format-truncation> -fno-math-errno -ffp-contract=off
    -fno-strict-aliasing -fvisibility=hidden)
if(QN_WERROR)
  list(APPEND QN_C_FLAGS -Werror)
endif()
if(QN_SANITIZE)
  list(APPEND QN_C_FLAGS -fsanitize=${QN_SANITIZE} -fno-omit-frame-pointer
       -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${QN_SANITIZE})
endif()
if(QN_FUZZ)
  list(APPEND QN_C_FLAGS -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
  add_link_options(-fsanitize=address,undefined)
endif()

# qn_add_library(name SOURCES a.c b.c LINK qn_base ...): the static library of one folder.
function(qn_add_library name)
  cmake_parse_arguments(A "" "" "SOURCES;LINK" ${ARGN})
  add_library(${name} STATIC ${A_SOURCES})
  target_include_directories(${name} PUBLIC ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${QN_C_FLAGS})
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE QN_VERSION="${PROJECT_VERSION}")
  target_link_libraries(${name} PUBLIC ${A_LINK})
endfunction()

# qn_add_test(name SOURCES ... LINK ... LABELS unit [ARGS ...]): one cmocka program, one ctest.
function(qn_add_test name)
  cmake_parse_arguments(A "" "TIMEOUT" "SOURCES;LINK;LABELS;ARGS" ${ARGN})
  add_executable(${name} ${A_SOURCES})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(${name} PRIVATE ${QN_C_FLAGS})
  target_compile_definitions(${name} PRIVATE _GNU_SOURCE
    QN_SOURCE_DIR="${CMAKE_SOURCE_DIR}" QN_BINARY_DIR="${CMAKE_BINARY_DIR}")
  target_link_libraries(${name} PRIVATE ${A_LINK} PkgConfig::CMOCKA m)
  add_test(NAME ${name} COMMAND ${name} ${A_ARGS})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT}
    SKIP_RETURN_CODE 77)
endfunction()

# qn_add_fuzz(name LINK ...): tests/fuzz/<name>.c defines LLVMFuzzerTestOneInput. Without QN_FUZZ
# it is linked with a driver that runs the saved inputs of tests/fuzz/corpus/<name> as a test.
function(qn_add_fuzz name)
  cmake_parse_arguments(A "" "" "LINK" ${ARGN})
  set(dir ${CMAKE_SOURCE_DIR}/tests/fuzz)
  if(QN_FUZZ)
    add_executable(fuzz_${name} ${dir}/${name}.c)
    target_link_options(fuzz_${name} PRIVATE -fsanitize=fuzzer)
  else()
    add_executable(fuzz_${name} ${dir}/${name}.c ${dir}/driver.c)
    add_test(NAME fuzz_${name} COMMAND fuzz_${name} ${dir}/corpus/${name})
    set_tests_properties(fuzz_${name} PROPERTIES LABELS "fuzz" TIMEOUT 120)
  endif()
  target_include_directories(fuzz_${name} PRIVATE ${CMAKE_SOURCE_DIR})
  target_compile_options(fuzz_${name} PRIVATE ${QN_C_FLAGS})
  target_compile_definitions(fuzz_${name} PRIVATE _GNU_SOURCE)
  target_link_libraries(fuzz_${name} PRIVATE ${A_LINK} m)
endfunction()

# qn_add_pytest(name PATHS ... LABELS ...): Python tests that drive the quern binary (env QN_QUERN).
function(qn_add_pytest name)
  cmake_parse_arguments(A "" "TIMEOUT" "PATHS;LABELS" ${ARGN})
  if(NOT A_TIMEOUT)
    set(A_TIMEOUT 600)
  endif()
  add_test(NAME ${name} COMMAND ${CMAKE_SOURCE_DIR}/tests/run_pytest.sh ${A_PATHS}
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS "${A_LABELS}" TIMEOUT ${A_TIMEOUT}
    SKIP_RETURN_CODE 77 ENVIRONMENT "QN_QUERN=$<TARGET_FILE:quern>")
endfunction()
