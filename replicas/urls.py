"""The addresses of views.py."""

from django.urls import path

from replicas import views

urlpatterns = [
    path("status", views.status, name="status"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
]
