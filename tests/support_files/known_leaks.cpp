// Memory that libraries lose by themselves: HDF5 on every damaged file, Open MPI when it starts. The sanitizer's report
// of our own leaks would drown in it.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() {
    return "leak:libhdf5\nleak:libmpi\nleak:libopen-rte\nleak:libopen-pal\nleak:mca_\nleak:libpmix\n";
}
