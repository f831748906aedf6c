# Debian packages, a component each: streamkvd, streamkv-client, libstreamkv0, libstreamkv-dev. Made by tools/package, in a tree of
# its own whose prefix is /usr, since units and programs name each other by full paths.
if(NOT CMAKE_INSTALL_PREFIX STREQUAL "/usr")
  file(WRITE ${CMAKE_BINARY_DIR}/CPackConfig.cmake
    "message(FATAL_ERROR \"This tree's prefix is ${CMAKE_INSTALL_PREFIX}; packages are made by tools/package.\")\n")
  return()
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_PACKAGE_CONTACT "The streamkv authors <streamkv@localhost>") # Maintainer; also in package/changelog
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL daemon client library dev)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_PRE_BUILD_SCRIPTS ${PROJECT_SOURCE_DIR}/cmake/package_finish.cmake)

set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1) # package/changelog begins with it and the version
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_ENABLE_COMPONENT_DEPENDS ON)

# sk_package(component name section description)
macro(sk_package component name section description)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name})
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section})
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${description}")
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${name} RENAME copyright
    COMPONENT ${component})
  install(FILES ${PROJECT_SOURCE_DIR}/package/changelog DESTINATION ${CMAKE_INSTALL_DATAROOTDIR}/doc/${name}
    RENAME changelog.Debian COMPONENT ${component})
endmacro()

sk_package(daemon streamkvd misc "daemon that keeps a language model warm
It holds the weights of one language model and a pool of streaming KV
caches, and serves them on a Unix socket to programs of the same machine. A
stream runs for as long as its reader likes in constant memory.
/etc/streamkv/streamkvd.conf names the model; until an administrator has
done that and enabled it, the service does not run.")
sk_package(client streamkv-client misc "command line client of streamkvd
Sends prompts to a streamkvd and streams what its model makes of them; lists,
forks, saves and loads sessions; measures how well a text is predicted, and
how fast many clients are served.")
sk_package(library libstreamkv0 libs "client library of streamkvd
The C interface to a streamkvd: requests over a Unix socket, tokens from a
ring in shared memory.")
sk_package(dev libstreamkv-dev libdevel "client library of streamkvd: files to build with
The header, the pkg-config file and the description of the protocol.")
set(CPACK_COMPONENT_DEV_DEPENDS library)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY >=)
set(CPACK_DEBIAN_DAEMON_PACKAGE_SUGGESTS streamkv-client)
set(CPACK_DEBIAN_CLIENT_PACKAGE_SUGGESTS streamkvd)

install(DIRECTORY DESTINATION /etc/streamkv COMPONENT daemon) # for the administrator's file

# The scripts that dpkg runs. Which units and files of systemd's there are, they see by themselves.
set(scripts)
foreach(script postinst prerm postrm)
  list(APPEND scripts ${PROJECT_SOURCE_DIR}/package/${script})
endforeach()
set(CPACK_DEBIAN_DAEMON_PACKAGE_CONTROL_EXTRA ${scripts})
include(CPack)
