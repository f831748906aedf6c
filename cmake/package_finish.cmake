# What Debian wants of the files of a package, before CPack makes it: manual pages and changelogs are compressed.
set(usr ${CPACK_TEMPORARY_DIRECTORY}/*/usr/share)
file(GLOB_RECURSE files ${usr}/man/man*/*.[1-8] ${usr}/doc/*/changelog.Debian)
foreach(file IN LISTS files)
  execute_process(COMMAND gzip -9nf ${file} COMMAND_ERROR_IS_FATAL ANY)
endforeach()
