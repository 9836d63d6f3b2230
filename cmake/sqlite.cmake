# SQLite: the pinned amalgamation (tools/get-sqlite puts it into .deps/), or the system's.
if(SLUICE_SQLITE STREQUAL "system")
  pkg_check_modules(SQLITE3 REQUIRED IMPORTED_TARGET sqlite3)
  add_library(sluice_sqlite INTERFACE)
  target_link_libraries(sluice_sqlite INTERFACE PkgConfig::SQLITE3)
else()
  set(SLUICE_SQLITE_DIR ${CMAKE_SOURCE_DIR}/.deps/sqlite)
  if(NOT EXISTS ${SLUICE_SQLITE_DIR}/sqlite3.c)
    execute_process(COMMAND ${CMAKE_SOURCE_DIR}/tools/get-sqlite ${SLUICE_SQLITE_DIR}
                    RESULT_VARIABLE failed)
    if(failed)
      message(FATAL_ERROR "no SQLite amalgamation: tools/get-sqlite failed (see above); "
                          "or configure with -DSLUICE_SQLITE=system")
    endif()
  endif()
  add_library(sluice_sqlite STATIC ${SLUICE_SQLITE_DIR}/sqlite3.c)
  target_include_directories(sluice_sqlite SYSTEM PUBLIC ${SLUICE_SQLITE_DIR})
  target_compile_options(sluice_sqlite PRIVATE -w)
  # clang takes three times as long for so large a file under a sanitizer, and it is the one that the
  # whole build waits for. What gcc makes of it calls the same run-time.
  find_program(SLUICE_GCC gcc)
  if(SLUICE_SANITIZE AND NOT SLUICE_FUZZ AND CMAKE_C_COMPILER_ID STREQUAL "Clang" AND SLUICE_GCC)
    target_compile_options(sluice_sqlite PRIVATE -g1)
    set_target_properties(sluice_sqlite PROPERTIES C_COMPILER_LAUNCHER
                          "sh;-c;shift && exec '${SLUICE_GCC}' \"$@\";sh")
  endif()
  target_compile_definitions(sluice_sqlite PRIVATE
    SQLITE_THREADSAFE=2 SQLITE_ENABLE_SNAPSHOT SQLITE_ENABLE_DBPAGE_VTAB SQLITE_ENABLE_DBSTAT_VTAB
    SQLITE_ENABLE_FTS5 SQLITE_ENABLE_RTREE SQLITE_ENABLE_GEOPOLY SQLITE_ENABLE_MATH_FUNCTIONS
    SQLITE_ENABLE_STAT4 SQLITE_ENABLE_PREUPDATE_HOOK SQLITE_ENABLE_SESSION
    SQLITE_ENABLE_COLUMN_METADATA SQLITE_ENABLE_UNLOCK_NOTIFY SQLITE_ENABLE_STMTVTAB
    SQLITE_ENABLE_NORMALIZE SQLITE_DQS=0 SQLITE_DEFAULT_MEMSTATUS=0 SQLITE_LIKE_DOESNT_MATCH_BLOBS
    SQLITE_USE_URI=0 SQLITE_DEFAULT_PCACHE_INITSZ=0 HAVE_USLEEP=1 HAVE_PREAD=1 HAVE_PWRITE=1)
  target_link_libraries(sluice_sqlite PUBLIC Threads::Threads m ${CMAKE_DL_LIBS})
endif()
