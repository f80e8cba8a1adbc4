# SPDX-License-Identifier: Apache-2.0
# What cmake --install lays down. Component runtime: the library and what it was built for, all that the
# Python package holds of it. Component development: the headers, and find_package(qvlmem).
include(CMakePackageConfigHelpers)
set(QVLMEM_PACKAGE lib/cmake/qvlmem)

# Without a run path: whoever uses the library has PyTorch loaded or linked already.
install(TARGETS qvlmem EXPORT qvlmemTargets LIBRARY DESTINATION lib COMPONENT runtime)
install(FILES ${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/libqvlmem.json DESTINATION lib COMPONENT runtime)

target_include_directories(qvlmem INTERFACE $<INSTALL_INTERFACE:include>)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/ops/qvlmem DESTINATION include COMPONENT development
  FILES_MATCHING PATTERN "*.h")
install(FILES ${PROJECT_BINARY_DIR}/include/qvlmem/version.h DESTINATION include/qvlmem COMPONENT development)
install(EXPORT qvlmemTargets NAMESPACE qvlmem:: DESTINATION ${QVLMEM_PACKAGE} COMPONENT development)
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/qvlmemConfig.cmake.in
  ${PROJECT_BINARY_DIR}/qvlmemConfig.cmake INSTALL_DESTINATION ${QVLMEM_PACKAGE})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/qvlmemConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/qvlmemConfig.cmake
  ${PROJECT_BINARY_DIR}/qvlmemConfigVersion.cmake
  ${CMAKE_CURRENT_LIST_DIR}/QvlmemTorch.cmake
  DESTINATION ${QVLMEM_PACKAGE} COMPONENT development)
